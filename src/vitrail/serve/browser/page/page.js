// The page: joins with the invitation in its address, has a worker measure every model in every mode, and sends each
// result as soon as it is there. What could not be sent waits in the browser's storage and is sent when the page is
// open again, so that closing it half-way loses nothing.

import { drawBoard } from "/page/board.js";
import { describeDevice, isApplePhone, newId } from "/page/device.js";
import { drawWindow } from "/page/window.js";

const SILENCE_MS = 180_000; // a worker that says nothing for so long has crashed
const POLL_MS = 2000;
const $ = (id) => document.getElementById(id);
const memory = new Map();
const store = { // the browser's storage, and where it has none or no more, this page's memory
  get(key) {
    if (!memory.has(key)) {
      try { memory.set(key, JSON.parse(localStorage.getItem(`vitrail.${key}`))); } catch { memory.set(key, null); }
    }
    return memory.get(key);
  },
  set(key, value) {
    memory.set(key, value);
    try { localStorage.setItem(`vitrail.${key}`, JSON.stringify(value)); } catch { /* full, or forbidden */ }
  },
};

let token = null;
let state = null;
let device = null;
let revision = -1;
let measuring = false;
let told = false; // the server, that this device has measured everything and that it has it all

function say(id, text) { $(id).textContent = text; $(id).hidden = !text; }

function complain(text, look = "notice bad") {
  $("trouble").className = look;
  say("trouble", text);
}

async function call(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const init = body === undefined ? { headers }
    : { method: "POST", headers, body: JSON.stringify(body), keepalive: JSON.stringify(body).length < 60_000 };
  for (let attempt = 0; ; attempt++) {
    const response = await fetch(path, init);
    if ((response.status !== 429 && response.status !== 503) || attempt === 5) return response;
    await new Promise((wake) => setTimeout(wake, 1000 * Number(response.headers.get("Retry-After") ?? 2)));
  }
}

async function reason(response) {
  try { return (await response.json()).error; } catch { return `the server answered ${response.status}`; }
}

// ---- joining

async function join() {
  const invitation = location.hash.slice(1);
  token = store.get("session");
  device = await describeDevice(store);
  const known = token ? await call("/api/state") : null;
  if (known?.ok) {
    state = await known.json();
  } else {
    token = null;
    if (!invitation) return complain("Open the link, or scan the code, that the terminal shows.");
    const joined = await call("/api/join", { invitation, device });
    if (!joined.ok) return complain(`This device could not join: ${await reason(joined)}.`);
    state = await joined.json();
    token = state.session;
    store.set("session", token);
  }
  history.replaceState(null, "", location.pathname); // a used link is of no use in the history
  show();
  await settle();
  refresh();
  setInterval(refresh, POLL_MS);
}

function show() {
  $("name").value = device.name;
  $("licence").href = `${state.ort}LICENSE`;
  $("notices").href = `${state.ort}ThirdPartyNotices.txt`;
  const facts = [
    [device.browser, true], [device.platform, true], [`${device.cores} cores`, true],
    [device.simd ? "SIMD" : "no SIMD", device.simd],
    [device.cross_origin_isolated ? "threads" : "no threads", device.cross_origin_isolated],
    [device.webgpu ? `WebGPU${device.gpu ? `: ${device.gpu}` : ""}` : "no WebGPU", device.webgpu],
  ];
  $("facts").replaceChildren(...facts.filter(([text]) => text).map(([text, there]) => {
    const item = document.createElement("li");
    item.textContent = text;
    item.className = there ? "" : "no";
    return item;
  }));
  const missing = [];
  if (!device.secure_context) missing.push("The page came over plain http, so that this browser gives it one thread, no WebGPU and a coarse clock.");
  if (!device.simd) missing.push("This browser has no WebAssembly SIMD, which the measurement needs; update it.");
  say("limits", missing.join(" "));
  $("here").hidden = $("all").hidden = false;
  $("go").disabled = !device.simd;
}

// ---- measuring

function modes() {
  // Safari on phones runs out of memory with threads (onnxruntime #11679, #22086).
  const most = device.cross_origin_isolated && !isApplePhone() ? device.cores : 1;
  const threads = [...new Set(state.plan.threads.map((n) => Math.min(n, most)))];
  const found = threads.map((n) => ({ backend: "wasm", threads: n, text: n === 1 ? "1 thread" : `${n} threads` }));
  if (state.plan.webgpu && device.webgpu) found.push({ backend: "webgpu", threads: 1, text: "WebGPU" });
  return found;
}

function shuffled(list) {
  const copy = [...list];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [copy[i], copy[j]] = [copy[j], copy[i]];
  }
  return copy;
}

// What this session has measured, so that a page that was closed half-way goes on with the rest.
const measured = () => { const known = store.get("measured"); return known?.token === token ? known.keys : []; };
const keyOf = (model, mode) => `${model.id} ${mode.backend} ${mode.threads}`;

function remaining() {
  const known = new Set(measured());
  const all = state.models.map((model) => ({ model, left: modes() }));
  const rest = all.map(({ model, left }) => ({ model, left: left.filter((mode) => !known.has(keyOf(model, mode))) })).filter(({ left }) => left.length);
  if (!rest.length) store.set("measured", { token, keys: [] }); // everything once more
  return shuffled(rest.length ? rest : all);
}

async function measureAll() {
  measuring = true;
  $("go").disabled = $("name").disabled = true;
  say("finished", "");
  $("progress").hidden = false;
  const tasks = remaining();
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  try {
    const total = tasks.reduce((sum, { left }) => sum + left.length, 0);
    let count = 0, failed = 0;
    for (const { model, left } of tasks) {
      say("step", `${model.label}: fetching ${(model.size_bytes / 1e6).toFixed(1)} MB`);
      const parts = await Promise.all(["file", "images", "answer"].map((part) => bytes(`/api/models/${model.id}/${part}`)));
      for (const mode of left) {
        const result = await measureOne(model, mode, parts, (text, done) => {
          say("step", `${model.label}, ${mode.text}: ${text}`);
          $("bar").value = (count + done) / total;
        });
        failed += result.failure ? 1 : 0;
        await keepAndSend({ id: newId(), model: model.id, backend: mode.backend, threads: mode.threads, ...result });
        store.set("measured", { token, keys: [...measured(), keyOf(model, mode)] });
        $("bar").value = ++count / total;
        await refresh(true);
      }
    }
    await settle();
    say("finished", waiting().length ? "Done, but some results could not be sent yet; leave the page open."
      : failed ? `Done; ${failed} of ${total} measurements failed, the table says why.`
      : "Done. You may close this page, or measure again.");
  } catch (error) {
    complain(`The measurement stopped: ${error.message}. What was measured is kept; start again for the rest.`);
  } finally {
    await lock?.release().catch(() => null);
    $("progress").hidden = true;
    $("go").disabled = $("name").disabled = false;
    measuring = false;
  }
}

async function bytes(path) {
  const response = await call(path);
  if (!response.ok) throw new Error(await reason(response));
  return response.arrayBuffer();
}

function measureOne(model, mode, [file, images, answer], progress) {
  return new Promise((settle) => {
    const worker = new Worker("/page/worker.js", { type: "module" });
    let hidden = document.hidden, watchdog;
    const notice = () => { hidden ||= document.hidden; };
    document.addEventListener("visibilitychange", notice);
    const end = (result) => {
      clearTimeout(watchdog);
      worker.terminate();
      document.removeEventListener("visibilitychange", notice);
      settle({ ...result, hidden });
    };
    const fail = (text) => end({ failure: text.replace(/[^\x20-\x7e]+/g, " ").trim().slice(0, 300) || "unknown" });
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => fail(`no word for ${SILENCE_MS / 1000} s; probably out of memory`), SILENCE_MS);
    };
    worker.onmessage = ({ data }) => {
      heard();
      if (data.kind === "step") progress(data.text, data.done ?? 0);
      else if (data.kind === "result") end(data.result);
      else fail(data.text);
    };
    worker.onerror = (event) => { event.preventDefault?.(); fail(event.message || "the worker crashed; probably out of memory"); };
    heard();
    progress("loading", 0);
    const { ort, plan } = state;
    worker.postMessage({ ort, plan, backend: mode.backend, threads: mode.threads, shape: model.shape, clock_ms: device.clock_ms, file, images, answer });
  });
}

// ---- sending

const waiting = () => store.get("waiting") ?? [];

async function keepAndSend(result) {
  store.set("waiting", [...waiting(), result]);
  await sendWaiting();
}

async function sendWaiting() {
  for (const result of waiting()) {
    let response;
    try { response = await call("/api/results", result); } catch { return; } // no network: it waits
    if (response.status === 429 || response.status >= 500 || response.status === 401) return;
    store.set("waiting", waiting().filter((other) => other.id !== result.id));
  }
}

// Sends what waits, and says so once everything that is to be measured was measured and sent.
async function settle() {
  await sendWaiting();
  const known = new Set(measured());
  const complete = state.models.every((model) => modes().every((mode) => known.has(keyOf(model, mode))));
  if (complete && !waiting().length && !told) told = (await call("/api/done", {})).ok;
}

// ---- what all devices have

async function refresh(now = false) {
  if ((measuring && !now) || document.hidden) return; // the network would take time from the measurement
  let response;
  try {
    if (!measuring && waiting().length) await settle();
    response = await call(`/api/board?since=${revision}`);
  } catch {
    return waiting().length
      ? complain("The machine that serves this page cannot be reached; results are kept here until it can.")
      : complain("The machine that serves this page has stopped, or is out of reach. It has everything that was measured here.", "notice");
  }
  if (response.status === 401) return complain("This session is over. Scan the new code on the terminal to measure again.");
  if (response.status !== 200) return response.ok && complain("");
  const { rows, revision: newest } = await response.json();
  revision = newest;
  complain("");
  drawBoard(rows);
}

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name || measuring) return;
  store.set("name", name);
  if (name !== device.name) {
    device.name = name;
    await call("/api/device", device);
  }
  measureAll();
});
drawWindow($("window"));
join().catch((error) => complain(`Something went wrong: ${error.message}`));
