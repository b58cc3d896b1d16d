// What MQTT.js does with the broker: node scenarios.js NAME HOST PORT VERSION TOPIC
//
// HOST may be a URL, such as ws://127.0.0.1:8083/mqtt; PORT means nothing then.
// VERSION is 3 (MQTT 3.1), 4 (3.1.1) or 5. TOPIC is this run's own. A scenario that holds prints
// "ok NAME" as its last line and ends with 0; whatever else happens means that it failed.

import assert from "node:assert/strict";
import mqtt from "mqtt";

const [name, host, port, version, topic] = process.argv.slice(2);
const protocolVersion = Number(version);
const EXPIRY = 300;

/** Messages of a client in order; next() waits for one. */
class Inbox {
  constructor(client) {
    this.messages = [];
    this.waiting = [];
    client.on("message", (where, payload, packet) => {
      const message = { topic: where, payload, packet };
      const waiter = this.waiting.shift();
      if (waiter) waiter(message);
      else this.messages.push(message);
    });
  }

  next() {
    if (this.messages.length) return Promise.resolve(this.messages.shift());
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  async texts(count) {
    const texts = [];
    while (texts.length < count) texts.push((await this.next()).payload.toString());
    return texts;
  }
}

/** A connected client, with its `inbox` and its `connack`; `resume` asks for a lasting session. */
function connect({ resume = false, ...options } = {}) {
  const settings = { protocolVersion, reconnectPeriod: 0, ...options };
  if (!host.includes("://")) Object.assign(settings, { host, port: Number(port) });
  if (protocolVersion === 3) settings.protocolId = "MQIsdp";
  settings.clean = !resume;
  if (resume && protocolVersion === 5) {
    settings.properties = { sessionExpiryInterval: EXPIRY, ...settings.properties };
  }
  const client = host.includes("://") ? mqtt.connect(host, settings) : mqtt.connect(settings);
  client.inbox = new Inbox(client); // before what a resumed session brings
  return new Promise((resolve, reject) => {
    client.once("connect", (connack) => {
      client.connack = connack;
      resolve(client);
    });
    client.once("error", reject);
  });
}

const closed = (client) => new Promise((resolve) => client.once("close", resolve));
const range = (count) => Array.from({ length: count }, (_, number) => String(number));

const scenarios = {
  async round_trip() {
    const subscriber = await connect();
    const publisher = await connect();
    for (const qos of [0, 1, 2]) {
      const where = `${topic}/${qos}`;
      const [granted] = await subscriber.subscribeAsync(`${topic}/+`, { qos });
      assert.equal(granted.qos, qos);
      const wanted = range(200);
      const sent = wanted.map((text) => publisher.publishAsync(where, text, { qos }));
      assert.deepEqual(await subscriber.inbox.texts(wanted.length), wanted);
      await Promise.all(sent);
      await publisher.publishAsync(where, "last", { qos });
      const { topic: got, packet } = await subscriber.inbox.next();
      assert.deepEqual([got, packet.qos, packet.retain], [where, qos, false]);
    }
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
  },

  async retained() {
    const client = await connect();
    await client.publishAsync(topic, "off", { qos: 1, retain: true });
    await client.publishAsync(topic, "on", { qos: 1, retain: true });
    await client.subscribeAsync(topic);
    const { payload, packet } = await client.inbox.next();
    assert.deepEqual([payload.toString(), packet.retain], ["on", true]);
    await client.unsubscribeAsync(topic);
    await client.publishAsync(topic, "", { qos: 1, retain: true });
    await client.subscribeAsync(topic);
    await client.publishAsync(topic, "marker");
    const after = await client.inbox.next();
    assert.deepEqual([after.payload.toString(), after.packet.retain], ["marker", false]);
    await client.endAsync();
  },

  async will() {
    const watcher = await connect();
    await watcher.subscribeAsync(topic, { qos: 1 });
    const will = { topic, payload: Buffer.from("gone"), qos: 1, retain: true };
    if (protocolVersion === 5) will.properties = { contentType: "text/plain" };
    const polite = await connect({ will });
    await polite.endAsync();
    await watcher.publishAsync(topic, "marker");
    assert.deepEqual(await watcher.inbox.texts(1), ["marker"]);
    const victim = await connect({ will });
    victim.stream.destroy();
    await closed(victim);
    const { payload, packet } = await watcher.inbox.next();
    assert.equal(payload.toString(), "gone");
    if (protocolVersion === 5) assert.equal(packet.properties.contentType, "text/plain");
    await watcher.publishAsync(topic, "", { qos: 1, retain: true });
    await watcher.endAsync();
  },

  async resume() {
    const clientId = `js${process.pid}x${protocolVersion}`;
    const first = await connect({ clientId, resume: true });
    assert.equal(first.connack.sessionPresent, false);
    await first.subscribeAsync(topic, { qos: 2 });
    await first.endAsync();
    const publisher = await connect();
    for (const text of range(20)) await publisher.publishAsync(topic, text, { qos: 2 });
    const second = await connect({ clientId, resume: true });
    if (protocolVersion > 3) assert.equal(second.connack.sessionPresent, true);
    assert.deepEqual(await second.inbox.texts(20), range(20));
    await second.endAsync();
    const third = await connect({ clientId });
    assert.equal(third.connack.sessionPresent, false);
    await Promise.all([third.endAsync(), publisher.endAsync()]);
  },

  async shared() {
    const members = [await connect(), await connect(), await connect()];
    for (const member of members) await member.subscribeAsync(`$share/g/${topic}`, { qos: 1 });
    const publisher = await connect();
    const count = 60;
    for (const text of range(count)) await publisher.publishAsync(topic, text, { qos: 1 });
    const shares = [];
    for (const member of members) {
      await member.subscribeAsync(`${topic}/end`, { qos: 1 });
      await publisher.publishAsync(`${topic}/end`, "end", { qos: 1 });
      const share = [];
      for (;;) {
        const { topic: where, payload } = await member.inbox.next();
        if (where !== topic) break;
        share.push(payload.toString());
      }
      assert.ok(share.length > 0, "a member got nothing");
      shares.push(...share);
    }
    assert.deepEqual(shares.map(Number).sort((a, b) => a - b), range(count).map(Number));
    await Promise.all([publisher, ...members].map((client) => client.endAsync()));
  },

  async mebibyte() {
    const client = await connect();
    const payload = Buffer.alloc(1024 * 1024, Buffer.from(range(256).map(Number)));
    for (const qos of [0, 1, 2]) {
      await client.subscribeAsync(topic, { qos });
      await client.publishAsync(topic, payload, { qos });
      const got = await client.inbox.next();
      assert.ok(payload.equals(got.payload));
      assert.equal(got.packet.qos, qos);
    }
    await client.endAsync();
  },

  async thousand_subscriptions() {
    const client = await connect();
    const topics = range(1000).map((number) => `${topic}/${number}`);
    await client.subscribeAsync(topics.slice(0, 500), { qos: 1 });
    await Promise.all(topics.slice(500).map((where) => client.subscribeAsync(where, { qos: 1 })));
    const publisher = await connect();
    for (const where of topics) publisher.publish(where, where, { qos: 1 });
    assert.deepEqual(await client.inbox.texts(topics.length), topics);
    await Promise.all([client.endAsync(), publisher.endAsync()]);
  },

  async request() {
    const responder = await connect();
    await responder.subscribeAsync(`${topic}/requests`, { qos: 1 });
    const requester = await connect();
    await requester.subscribeAsync(`${topic}/responses`, { qos: 1 });
    await requester.publishAsync(`${topic}/requests`, "2 + 3", {
      qos: 1,
      properties: {
        responseTopic: `${topic}/responses`,
        correlationData: Buffer.from([0, 255, 1]),
        contentType: "text/x-sum",
        payloadFormatIndicator: true,
        messageExpiryInterval: 100,
        userProperties: { lang: ["en", "de"], unit: "none" },
      },
    });
    const { packet: request } = await responder.inbox.next();
    const asked = request.properties;
    assert.deepEqual({ ...asked.userProperties }, { lang: ["en", "de"], unit: "none" });
    assert.equal(asked.contentType, "text/x-sum");
    assert.equal(asked.payloadFormatIndicator, true);
    assert.ok(asked.messageExpiryInterval > 0 && asked.messageExpiryInterval <= 100);
    const { correlationData } = asked;
    await responder.publishAsync(asked.responseTopic, "5", {
      qos: 1,
      properties: { correlationData },
    });
    const { payload, packet } = await requester.inbox.next();
    assert.equal(payload.toString(), "5");
    assert.deepEqual([...packet.properties.correlationData], [0, 255, 1]);
    await Promise.all([responder.endAsync(), requester.endAsync()]);
  },

  async aliases() {
    // The broker may use aliases towards the client, the client uses them towards the broker.
    const subscriber = await connect({ properties: { topicAliasMaximum: 10 } });
    const publisher = await connect({ autoUseTopicAlias: true, autoAssignTopicAlias: true });
    assert.ok(publisher.connack.properties.topicAliasMaximum > 0);
    await subscriber.subscribeAsync(`${topic}/#`);
    const wanted = range(90).map((number) => `${topic}/${number % 30}`);
    for (const where of wanted) await publisher.publishAsync(where, where);
    for (const where of wanted) {
      const { topic: got, payload } = await subscriber.inbox.next();
      assert.deepEqual([got, payload.toString()], [where, where]);
    }
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
  },

  /** Let in by the token in TOKEN, and cut off when it ends. */
  async token() {
    await assert.rejects(connect({ username: "x", password: "a password" }));
    const client = await connect({ username: "x", password: process.env.TOKEN });
    await client.subscribeAsync(topic, { qos: 1 });
    await client.publishAsync(topic, "in time", { qos: 1 });
    assert.deepEqual(await client.inbox.texts(1), ["in time"]);
    let reason = 0;
    client.on("disconnect", (packet) => (reason = packet.reasonCode));
    await closed(client);
    if (protocolVersion === 5) assert.equal(reason, 0x87);
    client.end(true);
  },
};

process.on("unhandledRejection", (error) => {
  console.error(error);
  process.exit(1);
});
await scenarios[name]();
console.log(`ok ${name}`);
