"""A broker beside a Flask application: Trio runs in a thread of its own, views just call it.

    pip install flask
    python examples/with_flask.py

Flask's views run in threads, and all of them may use the broker. Run as above, the program asks
itself through Flask's test client.
"""

import threading

from flask import Flask, Response, jsonify

import mqtrio.embed


def create_app(broker: mqtrio.embed.BlockingBroker) -> Flask:
    """An application that uses a broker."""
    app = Flask(__name__)

    @app.get("/sensors/<name>")
    def read(name: str) -> Response:
        values = [message.payload.decode() for message in broker.retained(f"sensors/{name}")]
        return jsonify(name=name, values=values)

    @app.post("/ask/<name>")
    def ask(name: str) -> Response:
        answer = broker.request(f"devices/{name}", "how are you?", timeout=5)
        return jsonify(answer=answer.payload.decode())

    return app


def device(broker: mqtrio.embed.BlockingBroker, ready: threading.Event) -> None:
    """A device that answers one question."""
    with broker.subscribe("devices/pump") as questions:
        ready.set()
        question = questions.receive(timeout=5)
        assert question.response_topic is not None
        broker.publish(question.response_topic, "fine", correlation_data=question.correlation_data)


def main() -> None:
    """Run the broker around the application."""
    with mqtrio.embed.open_thread_broker("mqtt://127.0.0.1:0") as broker:
        browser = create_app(broker).test_client()
        broker.publish("sensors/attic", "30", retain=True)
        print(browser.get("/sensors/attic").json)
        ready = threading.Event()
        pump = threading.Thread(target=device, args=(broker, ready))
        pump.start()
        ready.wait(5)
        print(browser.post("/ask/pump").json)
        pump.join()


if __name__ == "__main__":
    main()
