"""What happens to packets: the state machine of the protocol, without sockets."""
