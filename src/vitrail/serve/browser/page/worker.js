// One model in one mode, in a thread and a memory of its own: what runs out of memory here takes nothing else with it.
// The protocol is that of vitrail.bench.protocol: warm-up until two windows of runs agree, then timed samples.

const WINDOW = 5;
const STABLE_WITHIN = 0.05;
const CLOCK_STEPS = 50; // a sample lasts at least so many steps of the clock, or else it is the mean of several runs
const MAX_SAMPLES = 5000;
const TOLD_EVERY_MS = 300;
const STILL_WARMING = 0.9; // the last quarter of the samples over the first
const ATTEMPTS = 4;
const IDENTITY = "CAo6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEBQ="; // ONNX: y = Identity(x)

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function isStable(times) {
  if (times.length < 2 * WINDOW) return false;
  const earlier = median(times.slice(-2 * WINDOW, -WINDOW));
  return Math.abs(median(times.slice(-WINDOW)) - earlier) <= STABLE_WITHIN * earlier;
}

function relativeError(found, wanted) {
  if (found.length !== wanted.length) throw new Error(`the answer has ${found.length} numbers, not ${wanted.length}`);
  let difference = 0, scale = 0;
  for (let i = 0; i < wanted.length; i++) {
    difference = Math.max(difference, Math.abs(found[i] - wanted[i]));
    scale = Math.max(scale, Math.abs(wanted[i]));
  }
  if (!Number.isFinite(difference)) throw new Error("the answer is not a number");
  return difference / (scale || 1);
}

async function load(task) {
  const bundle = task.backend === "webgpu" ? "ort.webgpu.bundle.min.mjs" : "ort.wasm.bundle.min.mjs";
  const wasm = task.backend === "webgpu" ? "ort-wasm-simd-threaded.asyncify.wasm" : "ort-wasm-simd-threaded.wasm";
  const ort = await import(task.ort + bundle);
  ort.env.wasm.wasmPaths = { wasm: task.ort + wasm };
  ort.env.wasm.numThreads = task.threads;
  ort.env.logLevel = "error";
  // A model of one node starts the library before the clock does: load_ms is about the model, as in other runtimes.
  const first = Uint8Array.from(atob(IDENTITY), (letter) => letter.charCodeAt(0));
  await (await ort.InferenceSession.create(first, { executionProviders: [task.backend] })).release();
  return ort;
}

// The shape is known, and an application would say so: some models are a few percent faster.
function freeDimensions([batch, , height, width]) {
  return { batch, height, width };
}

async function measure(task) {
  const { plan } = task;
  const ort = await load(task);
  const input = new ort.Tensor("float32", new Float32Array(task.images), task.shape);
  const before = performance.now();
  const session = await ort.InferenceSession.create(new Uint8Array(task.file), {
    executionProviders: [task.backend], graphOptimizationLevel: "all", freeDimensionOverrides: freeDimensions(task.shape),
  });
  const feeds = { [session.inputNames[0]]: input };
  const run = async () => (await session.run(feeds))[session.outputNames[0]];
  const answer = await run();
  const load_ms = performance.now() - before;
  const max_relative_error = relativeError(await answer.getData(), new Float32Array(task.answer));

  postMessage({ kind: "step", text: "warming up" });
  const times = [];
  const start = performance.now();
  while (times.length < plan.warmup_runs - 1 && performance.now() - start < 1000 * plan.warmup_seconds) {
    const from = performance.now();
    await run();
    times.push(performance.now() - from);
    if (isStable(times)) break;
  }
  const spent = (performance.now() - start) / (times.length || 1);
  const runs_per_sample = Math.max(1, Math.ceil((CLOCK_STEPS * task.clock_ms) / Math.max(spent, 1e-3)));
  let warmup_runs = times.length + 1;
  const deadline = performance.now() + 1000 * plan.budget_seconds;
  const began = performance.now();
  let samples_ms = await sample(run, plan, runs_per_sample, deadline);
  const latest = deadline - (performance.now() - began); // to begin again and be whole in time
  // Browsers run WebAssembly as they compiled it first until, in the background, they have compiled it well. Samples
  // that were still growing faster were warm-up.
  for (let attempt = 1; attempt < ATTEMPTS && drift(samples_ms) < STILL_WARMING && performance.now() < latest; attempt++) {
    warmup_runs += samples_ms.length * runs_per_sample;
    samples_ms = await sample(run, plan, runs_per_sample, deadline);
  }
  await session.release();
  return { samples_ms, runs_per_sample, warmup_runs, load_ms, max_relative_error };
}

function drift(samples) {
  const quarter = samples.length >> 2;
  return quarter < 2 ? 1 : median(samples.slice(-quarter)) / median(samples.slice(0, quarter));
}

async function sample(run, plan, runs, deadline) {
  const samples = [];
  const start = performance.now();
  let told = start;
  for (;;) {
    const now = performance.now();
    const seconds = (now - start) / 1000;
    const enough = samples.length * runs >= plan.min_runs && seconds >= plan.min_seconds;
    if (samples.length && (enough || now >= deadline || samples.length >= MAX_SAMPLES)) break;
    if (now - told > TOLD_EVERY_MS) {
      told = now;
      const done = Math.min(1, (samples.length * runs) / plan.min_runs, seconds / (plan.min_seconds || 1e-9));
      postMessage({ kind: "step", text: `${samples.length * runs} runs`, done });
    }
    const from = performance.now();
    for (let i = 0; i < runs; i++) await run();
    const took = (performance.now() - from) / runs;
    samples.push(Math.round(Math.max(took, 1e-4) * 1e4) / 1e4);
  }
  return samples;
}

onmessage = async ({ data }) => {
  try {
    postMessage({ kind: "result", result: await measure(data) });
  } catch (error) {
    postMessage({ kind: "failure", text: String(error?.message ?? error) });
  }
};
