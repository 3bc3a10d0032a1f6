// The page: asks /v1/search, shows the hits, and lights them on the map.
import { LatentMap } from "./map.js";

const element = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
let info, map, asking, records = [];

// Calls of the server -----------------------------------------------------------------------

function headers() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (response.status === 401 && (await askForKey())) return call(path, options);
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Error(told?.error?.message ?? `the server answered ${response.status}`);
  }
  return response;
}

const get = async (path) => (await call(path)).json();

let keyAsked = null;
function askForKey() {
  keyAsked ??= new Promise((resolve) => {
    const box = element("key-box");
    box.showModal();
    box.addEventListener("close", () => {
      const key = element("key").value.trim();
      if (key) sessionStorage.setItem("key", key);
      element("key").value = "";
      keyAsked = null;
      // Chromium gives the focus back to a field that then takes no letters.
      element("query").blur();
      element("query").focus();
      resolve(Boolean(key));
    }, { once: true });
  });
  return keyAsked;
}

// Words and pictures, always as text and never as HTML --------------------------------------

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const words = (record) => String(record.text ?? record.path ?? record.id);
const short = (text, most = 160) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function bytes(n) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1000;
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

async function showPicture(image, record) {
  const path = `v1/pictures?path=${encodeURIComponent(record.path)}`;
  try {
    image.src = URL.createObjectURL(await (await call(path)).blob());
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    image.replaceWith(make("span", "words", words(record)));
  }
}

function say(text, bad = false) {
  const status = element("status");
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

// Searching ---------------------------------------------------------------------------------

async function search(question) {
  asking?.abort();
  const mine = (asking = new AbortController());
  const filter = element("filter").value.trim();
  const body = { ...question, k: Number(element("k").value), ...(filter && { filter }) };
  element("hits").setAttribute("aria-busy", "true");
  const started = performance.now();
  try {
    const response = await call("v1/search", {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
      signal: mine.signal,
    });
    const found = await response.json();
    records = found.hits[0];
    show(records);
    const milliseconds = Math.round(performance.now() - started);
    say(records.length
      ? `${records.length} nearest of ${whole.format(info.index.count)} in ${milliseconds} ms`
      : "Nothing fits the filter.");
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  } finally {
    if (asking === mine) element("hits").setAttribute("aria-busy", "false");
  }
}

function ask(text) {
  element("query").value = text;
  history.replaceState(null, "", text ? `#q=${encodeURIComponent(text)}` : location.pathname);
  if (text.trim()) search({ text: text.trim() });
}

function clear() {
  asking?.abort();
  records = [];
  ask("");
  show([]);
  say("");
  element("query").focus();
}

async function askWithPhoto(blob) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  search({ image: url });
}

async function moreLike(record) {
  if (info.extractor === "text" && record.text) return ask(String(record.text).slice(0, 2000));
  if (info.extractor === "image" && info.pictures && record.path) {
    const path = `v1/pictures?path=${encodeURIComponent(record.path)}`;
    return askWithPhoto(await (await call(path)).blob());
  }
}

// Hits --------------------------------------------------------------------------------------

function show(found) {
  const list = element("hits");
  const scores = found.map((record) => record.score);
  const distances = info.index.metric === "l2";
  const best = Math.max(...scores.map(Math.abs), 1e-12);
  list.replaceChildren(...found.map((record, place) => hit(record, place, best, distances)));
  list.scrollTop = 0;
  map?.light(found);
}

function hit(record, place, best, distances) {
  const item = make("li", "hit");
  item.tabIndex = 0;
  item.append(make("span", "rank", place + 1));
  if (info.pictures && record.path) {
    const image = make("img");
    image.alt = words(record);
    item.append(image);
    showPicture(image, record);
  } else {
    item.append(make("span", "words", words(record)));
  }
  const score = make("span", "score", record.score.toFixed(3));
  score.title = distances ? "squared distance" : "similarity";
  if (!distances) {
    const bar = make("i");
    bar.style.width = `${Math.max(4, (100 * Math.max(0, record.score)) / best)}%`;
    score.append(bar);
  }
  item.append(score);
  const about = make("span", "about");
  for (const [name, value] of Object.entries(record)) {
    if (["text", "score", "row", "point"].includes(name) || value === null) continue;
    if (name === "id" && !record.text && !record.path) continue;
    if (name === "path" && record.path === record.id) continue;
    about.append(make("span", "", name === "id" ? short(String(value), 60) : `${name}: ${short(String(value), 60)}`));
  }
  item.append(about);
  item.addEventListener("click", () => moreLike(record));
  for (const kind of ["focus", "mouseenter"]) item.addEventListener(kind, () => light(place));
  for (const kind of ["blur", "mouseleave"]) item.addEventListener(kind, () => light(null));
  return item;
}

function light(place) {
  [...element("hits").children].forEach((item, i) => item.classList.toggle("lit", i === place));
  map?.point(place);
}

// What it starts with -----------------------------------------------------------------------

function describe() {
  const { index, compressor } = info;
  const before = index.embedding_bytes, after = index.bytes_per_vector;
  const times = Math.round(before / after);
  element("name").textContent = info.name;
  document.title = `${info.name} · embedpress`;
  element("count").textContent = whole.format(index.count);
  element("each").replaceChildren(`${whole.format(before)} → `, make("b", "", whole.format(Math.round(after))));
  element("saved").replaceChildren(
    `${bytes(before * index.count)} → `,
    make("b", "", bytes(after * index.count) + (times > 1 ? `, ${times}× less` : "")),
  );
  element("scale").style.width = `${(100 * after) / before}%`;
  const kept = compressor["held_out_recall@10"]?.[index.of]?.trained;
  if (kept) {
    element("recall").textContent = kept.toFixed(3);
    element("recall-box").hidden = false;
  }
  element("figures").hidden = false;
  const columns = Object.keys(index.columns);
  element("columns").textContent = `columns: ${columns.join(", ")}`;
  const example = columns.find((name) => !["id", "text", "path"].includes(name)) ?? "id";
  const text = index.columns[example].includes("string");
  element("filter").placeholder = text ? `${example} == "…"` : `${example} > 10`;
  const byText = info.extractor === "text";
  element("query").disabled = !byText;
  element("form").querySelector(".ask button").disabled = !byText;
  element("form").querySelector(".ask").hidden = info.extractor === "image";
  element("photo-box").hidden = info.extractor !== "image";
  if (!info.extractor) {
    element("query").placeholder = "This index is asked by vectors, through /v1/search";
    say("To search by text here, export the compressor with --with-extractor.");
  }
}

async function offerExamples() {
  const count = info.index.rows;
  const rows = new Set();
  while (rows.size < Math.min(4, count)) rows.add(Math.floor(Math.random() * count));
  const found = await Promise.allSettled([...rows].map((row) => get(`v1/records/${row}`)));
  for (const { value: record } of found) {
    if (!record) continue; // deleted
    if (info.extractor === "text" ? !record.text : !(info.pictures && record.path)) continue;
    const button = make("button", "", short(words(record), 60));
    button.type = "button";
    button.title = short(words(record), 300);
    button.addEventListener("click", () => moreLike(record));
    element("examples").append(button);
  }
}

async function offerMap() {
  const box = element("map-box");
  if (!info.map) {
    document.querySelector(".found").classList.add("alone");
    return;
  }
  box.hidden = false;
  const drawing = await get("v1/map");
  map = new LatentMap(element("map"), element("tip"), drawing, {
    label: async (row) => short(words(await get(`v1/records/${row}`)), 220),
    chosen: async (row) => moreLike(await get(`v1/records/${row}`)),
    pointed: (place) => light(place),
  });
  const drawn = drawing.drawn < drawing.count ? `${whole.format(drawing.drawn)} of ` : "";
  element("caption").textContent = `${drawn}${whole.format(drawing.count)} latents in the plane`;
  element("closer").addEventListener("click", () => map.zoom(1.6));
  element("further").addEventListener("click", () => map.zoom(1 / 1.6));
  element("whole").addEventListener("click", () => map.reset());
  map.light(records);
}

function listen() {
  let typing;
  element("form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    ask(element("query").value);
  });
  element("query").addEventListener("input", () => {
    clearTimeout(typing);
    const text = element("query").value;
    if (text.trim().length > 2) typing = setTimeout(() => ask(text), 300);
  });
  for (const id of ["k", "filter"])
    element(id).addEventListener("change", () => ask(element("query").value));
  element("photo").addEventListener("change", () => {
    if (element("photo").files.length) askWithPhoto(element("photo").files[0]);
  });
  const box = element("photo-box");
  for (const kind of ["dragover", "dragleave", "drop"])
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      box.classList.toggle("over", kind === "dragover");
      const file = kind === "drop" && event.dataTransfer.files[0];
      if (file && info?.extractor === "image") askWithPhoto(file);
    });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files?.[0];
    if (file && info?.extractor === "image") askWithPhoto(file);
  });
  document.addEventListener("keydown", keys);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || element("key-box").open) return;
  const items = [...element("hits").children];
  const place = items.indexOf(document.activeElement);
  const typing = document.activeElement?.matches?.("input, select");
  if (event.key === "/" && !typing) element("query").focus();
  else if (event.key === "Escape") clear();
  else if (event.key === "ArrowDown" && (place >= 0 || !typing || document.activeElement.id === "query"))
    items[Math.min(place + 1, items.length - 1)]?.focus();
  else if (event.key === "ArrowUp" && place >= 0)
    (place === 0 ? element("query") : items[place - 1]).focus();
  else if (event.key === "Enter" && place >= 0) moreLike(records[place]);
  else return;
  event.preventDefault();
}

async function start() {
  listen();
  try {
    info = await get("info");
  } catch (error) {
    say(`The index is not there yet: ${error.message}`, true);
    setTimeout(() => location.reload(), 3000);
    return;
  }
  describe();
  const asked = new URLSearchParams(location.hash.slice(1)).get("q");
  if (asked && info.extractor === "text") ask(asked);
  await Promise.allSettled([offerMap(), offerExamples()]);
  document.documentElement.dataset.state = "ready";
}

start();
