// Draws what comes from sensors/ROOM/temperature, and publishes what the slider says.

import { Client } from "./mqtt.js";

const POINTS = 60;
const LOWEST = 10, HIGHEST = 30;
const COLOURS = ["#06c", "#c40", "#080", "#808", "#880"];
const SVG = "http://www.w3.org/2000/svg";

const chart = document.getElementById("chart");
const state = document.getElementById("state");
const slider = document.getElementById("slider");
const values = document.getElementById("values");
const rooms = new Map();

/** A room's line in the chart and its row in the table, made when it is first heard of. */
function roomOf(name) {
  if (!rooms.has(name)) {
    const colour = COLOURS[rooms.size % COLOURS.length];
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("stroke", colour);
    line.dataset.room = name;
    chart.append(line);
    const row = values.insertRow();
    row.insertCell().textContent = name;
    row.style.color = colour;
    rooms.set(name, { line, cell: row.insertCell(), readings: [] });
  }
  return rooms.get(name);
}

function draw({ line, cell, readings }) {
  const { width, height } = chart.viewBox.baseVal;
  const points = readings.map((celsius, index) => {
    const x = (index * width) / (POINTS - 1);
    const y = (height * (HIGHEST - celsius)) / (HIGHEST - LOWEST);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  line.setAttribute("points", points.join(" "));
  cell.textContent = `${readings.at(-1).toFixed(1)} °C`;
}

const asked = new URLSearchParams(location.search).get("broker");
const broker = asked ?? `ws://${location.hostname}:8083/mqtt`;
const client = new Client(broker, ["sensors/+/temperature"]);

client.addEventListener("connect", () => {
  state.textContent = `connected to ${broker}`;
  publish();
});
client.addEventListener("close", () => {
  state.textContent = `no connection to ${broker}`;
});
client.addEventListener("message", ({ detail: { topic, text } }) => {
  const celsius = Number(text);
  if (!Number.isFinite(celsius)) return;
  const room = roomOf(topic.split("/")[1]);
  room.readings.push(celsius);
  if (room.readings.length > POINTS) room.readings.shift();
  draw(room);
});

function publish() {
  client.publish("sensors/page/temperature", slider.value);
}
slider.addEventListener("change", publish);
