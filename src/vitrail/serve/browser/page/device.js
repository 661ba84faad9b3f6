// What this browser says of the device, and of what it gives to pages.

export function newId() { // crypto.randomUUID exists only in secure contexts
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt)): valid only where there is SIMD.
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);

function clockStep() {
  let step = Infinity;
  for (let i = 0; i < 20; i++) {
    const from = performance.now();
    let now = from;
    while (now === from) now = performance.now();
    step = Math.min(step, now - from);
  }
  return Math.min(1000, step);
}

function browserName() {
  const agent = navigator.userAgent;
  const brands = (navigator.userAgentData?.brands ?? []).filter((one) => !/Not.?A.?Brand/i.test(one.brand));
  const brand = brands.find((one) => one.brand !== "Chromium") ?? brands[0];
  if (brand) return `${brand.brand} ${brand.version}`;
  const found = /(Firefox|FxiOS|EdgiOS|CriOS|Edg|OPR|Chrome)\/(\d+)/.exec(agent) ?? /(Version)\/(\d+)[\d.]* .*Safari/.exec(agent);
  if (!found) return "";
  const names = { Version: "Safari", FxiOS: "Firefox iOS", CriOS: "Chrome iOS", EdgiOS: "Edge iOS", Edg: "Edge", OPR: "Opera" };
  return `${names[found[1]] ?? found[1]} ${found[2]}`;
}

async function platformAndModel() {
  const agent = navigator.userAgent;
  const hints = await navigator.userAgentData?.getHighEntropyValues?.(["model", "platformVersion"]).catch(() => null);
  if (hints?.platform) {
    const version = hints.platform === "Linux" ? "" : ` ${(hints.platformVersion ?? "").split(".")[0]}`;
    return [`${hints.platform}${version}`.trim(), hints.model ?? ""];
  }
  if (isApplePhone()) return [`iOS ${/OS (\d+)/.exec(agent)?.[1] ?? ""}`.trim(), /iPhone/.test(agent) ? "iPhone" : "iPad"];
  const android = /Android (\d+)/.exec(agent);
  if (android) return [`Android ${android[1]}`, ""];
  return [/Windows/.test(agent) ? "Windows" : /Mac OS X/.test(agent) ? "macOS" : /Linux/.test(agent) ? "Linux" : "", ""];
}

export function isApplePhone() { // iPads call themselves Macs, but Macs have no touch screen
  return /iPhone|iPad|iPod/.test(navigator.userAgent) || (/Mac OS X/.test(navigator.userAgent) && navigator.maxTouchPoints > 1);
}

async function graphics() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) return null;
    const info = adapter.info ?? {};
    // A processor that plays graphics card takes seconds where WebAssembly takes milliseconds.
    if (info.isFallbackAdapter || adapter.isFallbackAdapter || /swiftshader|llvmpipe/i.test(`${info.architecture} ${info.description}`)) return null;
    return [info.vendor, info.architecture].filter(Boolean).join(" ");
  } catch {
    return null;
  }
}

const printable = (text, length) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "").trim().slice(0, length);

export async function describeDevice(store) {
  const [platform, model] = await platformAndModel();
  const gpu = await graphics();
  const id = store.get("device") ?? newId();
  store.set("device", id);
  return {
    id,
    name: store.get("name") ?? (printable(model || [browserName(), platform].filter(Boolean).join(" on "), 60) || "Device"),
    browser: printable(browserName(), 120),
    platform: printable([platform, model].filter(Boolean).join(", "), 120),
    gpu: printable(gpu ?? "", 120),
    cores: Math.min(4096, Math.max(1, navigator.hardwareConcurrency || 1)),
    memory_gb: navigator.deviceMemory ?? 0,
    secure_context: isSecureContext,
    cross_origin_isolated: Boolean(globalThis.crossOriginIsolated),
    simd: WebAssembly.validate(SIMD),
    webgpu: gpu !== null,
    clock_ms: Math.round(clockStep() * 1e4) / 1e4,
  };
}
