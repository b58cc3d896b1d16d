// A small MQTT 3.1.1 client for pages: QoS 0, no sessions, connects again by itself. It is here so that the
// example needs nothing but a browser; for more take MQTT.js (npm install mqtt).

const CONNECT = 1, CONNACK = 2, PUBLISH = 3, SUBSCRIBE = 8, PINGREQ = 12;
const KEEP_ALIVE = 30;
const RECONNECT = 2000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Two bytes of length, then the text. */
function string(text) {
  const bytes = encoder.encode(text);
  return [bytes.length >> 8, bytes.length & 255, ...bytes];
}

/** A packet: type and flags, the length of the rest in 7 bits a byte, the rest. */
function packet(first, rest) {
  const length = [];
  let left = rest.length;
  do {
    const more = left > 127 ? 128 : 0;
    length.push((left & 127) | more);
    left >>= 7;
  } while (left);
  return Uint8Array.from([first, ...length, ...rest]);
}

/** Emits "connect", "close" and "message" (`detail` has `topic` and `text`). */
export class Client extends EventTarget {
  constructor(url, filters) {
    super();
    this.url = url;
    this.filters = filters;
    this.open();
  }

  open() {
    this.received = new Uint8Array();
    this.socket = new WebSocket(this.url, "mqtt");
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.connect();
    this.socket.onmessage = (event) => this.receive(new Uint8Array(event.data));
    this.socket.onclose = () => {
      clearInterval(this.pings);
      this.dispatchEvent(new Event("close"));
      setTimeout(() => this.open(), RECONNECT);
    };
  }

  connect() {
    const id = "page-" + crypto.randomUUID().slice(0, 8);
    const cleanSession = 2;
    this.socket.send(
      packet(CONNECT << 4, [...string("MQTT"), 4, cleanSession, 0, KEEP_ALIVE, ...string(id)]),
    );
    this.pings = setInterval(() => this.socket.send(packet(PINGREQ << 4, [])), KEEP_ALIVE * 500);
  }

  publish(topic, text) {
    this.socket.send(packet(PUBLISH << 4, [...string(topic), ...encoder.encode(text)]));
  }

  /** What a message of the WebSocket has need not be whole packets. */
  receive(bytes) {
    const all = new Uint8Array(this.received.length + bytes.length);
    all.set(this.received);
    all.set(bytes, this.received.length);
    let at = 0;
    for (;;) {
      let size = 0, start = at + 1, shift = 0;
      while (start < all.length && all[start] > 127) {
        size |= (all[start++] & 127) << shift;
        shift += 7;
      }
      if (start >= all.length) break;
      size |= all[start++] << shift;
      if (start + size > all.length) break;
      this.handle(all[at] >> 4, all.subarray(start, start + size));
      at = start + size;
    }
    this.received = all.slice(at);
  }

  handle(type, rest) {
    if (type === CONNACK && rest[1] === 0) {
      const filters = this.filters.flatMap((filter) => [...string(filter), 0]);
      this.socket.send(packet((SUBSCRIBE << 4) | 2, [0, 1, ...filters]));
      this.dispatchEvent(new Event("connect"));
    } else if (type === PUBLISH) {
      const end = 2 + (rest[0] << 8) + rest[1];
      const detail = {
        topic: decoder.decode(rest.subarray(2, end)),
        text: decoder.decode(rest.subarray(end)),
      };
      this.dispatchEvent(new CustomEvent("message", { detail }));
    }
  }
}
