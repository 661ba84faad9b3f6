// Accuracy over latency of all devices, and the table below it. Texts of other devices are only ever set as text.

const GLASS = 5;
const SHAPES = { wasm1: "circle", wasmN: "square", webgpu: "diamond" };
const SHAPE_NAMES = { circle: "1 thread", square: "several threads", diamond: "WebGPU" };
const $ = (id) => document.getElementById(id);

function svg(name, attributes = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function html(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const colour = (index) => `var(--glass-${(index % GLASS) + 1})`;
const shapeOf = (row) => (row.backend === "webgpu" ? SHAPES.webgpu : row.mode === "1 thread" ? SHAPES.wasm1 : SHAPES.wasmN);
const quality = (row) => (row.quality === null ? "–" : row.score.endsWith("(%)") ? `${row.quality.toFixed(1)} %` : row.quality.toPrecision(4));
const size = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function marker(shape, x, y, attributes) {
  if (shape === "circle") return svg("circle", { cx: x, cy: y, r: 5.5, ...attributes });
  if (shape === "square") return svg("rect", { x: x - 5, y: y - 5, width: 10, height: 10, ...attributes });
  return svg("path", { d: `M${x} ${y - 6.5}L${x + 6.5} ${y}L${x} ${y + 6.5}L${x - 6.5} ${y}Z`, ...attributes });
}

// ---- the chart

function ticksOfLog(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of [1, 2, 5]) {
      const value = digit * 10 ** power;
      if (value >= low && value <= high) found.push(Number(value.toPrecision(1)));
    }
  }
  return found;
}

function ticksOf(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((digit) => digit * power >= rough) ?? 10);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function scales(points, width, height) {
  const costs = points.map((row) => row.latency_ms_median), values = points.map((row) => row.quality);
  const low = Math.min(...costs) / 1.35, high = Math.max(...costs) * 1.6;
  const least = Math.min(...values), most = Math.max(...values);
  const spread = Math.max(most - least, 0.01 * Math.abs(most), 1e-6);
  const from = Math.max(least >= 0 ? 0 : -Infinity, least - 0.3 * spread), to = most + 0.3 * spread;
  const box = { left: 48, right: width - 10, top: 10, bottom: height - 40 };
  const better = points[0].higher_is_better;
  return {
    box,
    x: (ms) => box.left + ((box.right - box.left) * Math.log(ms / low)) / Math.log(high / low),
    y: (value) => { // better is always up
      const part = (value - from) / (to - from);
      return box.bottom - (box.bottom - box.top) * (better ? part : 1 - part);
    },
    ticksX: ticksOfLog(low, high), ticksY: ticksOf(from, points[0].score.endsWith("(%)") ? Math.min(100, to) : to),
    title: points[0].score,
  };
}

function drawAxes(chart, { box, x, y, ticksX, ticksY, title }) {
  let last = -Infinity;
  for (const tick of ticksX) {
    chart.append(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }));
    if (x(tick) - last < 30) continue;
    last = x(tick);
    chart.append(svg("text", { x: x(tick), y: box.bottom + 16, "text-anchor": "middle" }, String(tick)));
  }
  for (const tick of ticksY.found) {
    chart.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
    chart.append(svg("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(ticksY.digits)));
  }
  chart.append(svg("text", { x: box.right, y: box.bottom + 34, "text-anchor": "end" }, "latency, median (ms)"));
  chart.append(svg("text", { x: 14, y: box.top + 4, "text-anchor": "end", transform: `rotate(-90 14 ${box.top + 4})` }, title));
}

function drawNames(chart, points, { box, x, y }) {
  const taken = [];
  const overlaps = (a) => taken.some((b) => a.left < b.right && b.left < a.right && Math.abs(a.y - b.y) < 14);
  for (const row of [...points].sort((a, b) => a.latency_ms_median - b.latency_ms_median)) {
    if (!row.on_front) continue;
    const text = svg("text", { class: "name" }, row.model);
    chart.append(text);
    const length = text.getComputedTextLength(), px = x(row.latency_ms_median), py = y(row.quality);
    const left = Math.max(box.left + 2, Math.min(px - length / 2, box.right - length));
    const place = [-12, 22, -26, 36].map((rise) => ({ left, right: left + length, y: py + rise }))
      .find((one) => one.y > box.top + 8 && one.y < box.bottom - 2 && !overlaps(one));
    if (!place) { text.remove(); continue; } // the table has it
    text.setAttribute("x", place.left);
    text.setAttribute("y", place.y);
    taken.push(place);
  }
}

function drawChart(rows, devices) {
  const measured = rows.filter((row) => row.latency_ms_median !== null && row.quality !== null);
  const points = measured.filter((row) => row.score === measured[0].score); // others have no place on this axis
  const box = $("chart");
  if (!points.length) { box.replaceChildren(); return points; }
  const width = Math.max(300, box.clientWidth), height = Math.round(Math.min(440, Math.max(270, width * 0.5)));
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${points[0].score} over median latency of ${points.length} measurements on ${devices.length} devices; the table below has the numbers.` });
  box.replaceChildren(legend(devices, points), chart);
  const scale = scales(points, width, height);
  drawAxes(chart, scale);
  devices.forEach((device, index) => {
    const front = points.filter((row) => row.device === device && row.on_front).sort((a, b) => a.latency_ms_median - b.latency_ms_median);
    let path = "";
    front.forEach((row, i) => { path += i ? `H${scale.x(row.latency_ms_median)}V${scale.y(row.quality)}` : `M${scale.x(row.latency_ms_median)} ${scale.y(row.quality)}`; });
    chart.append(svg("path", { class: "front", d: path, stroke: colour(index) }));
  });
  for (const row of [...points].sort((a, b) => a.on_front - b.on_front)) {
    const attributes = row.on_front ? { class: "point", fill: colour(devices.indexOf(row.device)) } : { class: "point beaten" };
    const point = marker(shapeOf(row), scale.x(row.latency_ms_median), scale.y(row.quality), attributes);
    point.append(svg("title", {}, `${row.model}, ${row.mode}, on ${row.device}: ${milliseconds(row.latency_ms_median)} ms, ${quality(row)}`));
    chart.append(point);
  }
  drawNames(chart, points, scale);
  return points;
}

function legend(devices, points) {
  const list = html("ul", "legend");
  const entry = (shape, fill, text) => {
    const sign = svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" });
    sign.append(marker(shape, 0, 0, { fill }));
    const item = html("li");
    item.append(sign, text);
    list.append(item);
  };
  devices.forEach((device, index) => entry("circle", colour(index), device));
  for (const shape of new Set(points.map(shapeOf))) entry(shape, "var(--muted)", SHAPE_NAMES[shape]);
  return list;
}

// ---- the table

function drawTable(rows, devices) {
  const body = $("rows");
  $("table").hidden = !rows.length;
  body.replaceChildren();
  for (const device of devices) {
    const head = html("tr");
    const cell = html("th", "device", device);
    cell.colSpan = 8;
    cell.scope = "colgroup";
    head.append(cell);
    body.append(head);
    const cost = (row) => row.latency_ms_median ?? Infinity;
    const own = rows.filter((one) => one.device === device).sort((a, b) => cost(a) - cost(b));
    body.append(...own.map(tableRow));
  }
}

function tableRow(row) {
  const line = html("tr", row.on_front ? "front" : "");
  const head = html("th", "", row.model);
  head.scope = "row";
  line.append(head, html("td", "text", row.mode));
  if (row.failure) {
    const cell = html("td", "reason", row.failure);
    cell.colSpan = 6;
    line.append(cell);
    return line;
  }
  const times = [row.latency_ms_median, row.latency_ms_p90, row.latency_ms_p99].map(milliseconds);
  if (row.contended) times[0] += " *";
  for (const text of [...times, quality(row), `${milliseconds(row.load_ms)} ms`, size(row.size_bytes)]) line.append(html("td", "", text));
  return line;
}

let drawn = [];

export function drawBoard(rows) {
  drawn = rows;
  const devices = [...new Set(rows.map((row) => row.device))];
  const points = drawChart(rows, devices);
  drawTable(rows, devices);
  const scores = [...new Set(rows.map((row) => row.score).filter(Boolean))];
  const unknown = rows.length > 0 && !scores.length;
  $("score").textContent = scores.length === 1 ? scores[0].replace(" (%)", "") : "score";
  $("summary").textContent = !rows.length ? "Nobody has measured yet."
    : `${rows.length} ${rows.length === 1 ? "measurement" : "measurements"} on ${devices.length} ${devices.length === 1 ? "device" : "devices"}.`
    + (unknown ? " The accuracy of these files is not known; vitrail evaluate adds it, and the plot with it." : "");
  $("caption").textContent = [
    points.length ? "On the stepped line, and marked ◆ in the table: nothing on the same device is both faster and more accurate. Grey: something is." : "",
    scores.length > 1 && points.length ? `Only files with ${points[0].score} are drawn.` : "",
    rows.some((row) => row.contended) ? "* The device slowed down meanwhile, or the page was in the background." : "",
  ].join(" ").trim();
}

addEventListener("resize", () => { if (drawn.length) drawBoard(drawn); });
