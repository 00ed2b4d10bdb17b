"use strict";
// A page's matrix: a heatmap and a table over one selection of tasks and examples. What it is given
// is written by explorer.py, which says what each field holds.

const PAGE = 15; // rows of the table
const NAMES = 156, ALONG = 26, LINES = 8; // pixels under the heatmap: upright names, others, none
const MISSING = "#9e9e9e";

const shown = (z, digits = 3) =>
  Number.isFinite(z) ? (z > 0 ? "+" : "") + (z === 0 ? "0" : z.toPrecision(digits).replace("-", "−").replace("e-", "e−")) : "–";
const cut = (name, most) =>
  name.length <= most ? name : name.slice(0, most - 1 - (most >> 1)) + "…" + name.slice(name.length - (most >> 1));
const make = (tag, text = "", kind = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

const tip = make("div", "", "heat-tip");
tip.hidden = true;
document.body.append(tip);
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

/** Rows of float32 out of base64. */
function floats(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
  return new Float32Array(bytes.buffer);
}

/** 256 colours as the integers of a canvas: 255 from low to high, then that of a missing entry. */
function palette(stops) {
  const parts = stops.map(s => [1, 3, 5].map(k => parseInt(s.slice(k, k + 2), 16)));
  const pack = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  const found = new Uint32Array(256);
  for (let k = 0; k < 255; k++) {
    const at = k / 254 * (parts.length - 1), low = Math.min(Math.floor(at), parts.length - 2);
    found[k] = pack(parts[low].map((v, c) => Math.round(v + (at - low) * (parts[low + 1][c] - v))));
  }
  found[255] = pack([1, 3, 5].map(k => parseInt(MISSING.slice(k, k + 2), 16)));
  return found;
}

function forgetJax(key, data) {
  const root = document.getElementById(key), find = name => root.querySelector(name);
  const z = floats(data.z), N = data.examples.length, M = data.tasks.length;
  const mean = new Float64Array(N), share = new Float64Array(N);
  for (let j = 0; j < N; j++) {
    let sum = 0, up = 0, known = 0;
    for (let i = 0; i < M; i++) {
      const v = z[i * N + j];
      if (Number.isFinite(v)) { sum += v; known++; up += v > 0; }
    }
    mean[j] = known ? sum / known : NaN;
    share[j] = known ? up / known : NaN;
  }
  const colours = palette(data.colours);
  const state = { task: "", source: "", component: "", query: "", by: "z", down: true, page: 0, zoom: 0, chosen: -1 };
  let columns = [], rows = [];

  // ---- what is selected -------------------------------------------------------------------------
  let words = null; // what is searched, lower case, made when first needed
  function select() {
    const query = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    if (query.length && !words)
      words = data.examples.map((name, j) => `${name}\n${data.sources[data.source_of[j]].name}\n${data.texts ? data.texts[j] : ""}`.toLowerCase());
    columns = [];
    for (let j = 0; j < N; j++) {
      const g = data.source_of[j];
      if (state.source === "forgotten" && !(data.sources[g].mean > 0)) continue;
      if (state.source === "improved" && !(data.sources[g].mean <= 0)) continue;
      if (/^\d/.test(state.source) && g !== Number(state.source)) continue;
      if (state.component && data.component_of[j] !== Number(state.component)) continue;
      if (!query.every(word => words[j].includes(word))) continue;
      columns.push(j);
    }
    arrange();
  }

  const pairs = () => state.task === "*";
  // A row is an example, or with pairs task * N + example.
  const example = row => row % N;
  const value = row => pairs() ? z[row] : state.task === "" ? mean[row] : z[Number(state.task) * N + row];
  const ranks = names => {
    const rank = new Uint32Array(names.length);
    [...names.keys()].sort((a, b) => names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : a - b).forEach((j, k) => { rank[j] = k; });
    return rank;
  };
  let exampleRank = null;
  const SORT = {
    task: row => Math.floor(row / N),
    example: row => exampleRank[example(row)],
    source: row => data.source_of[example(row)],
    z: value,
    share: row => share[example(row)],
    component: row => data.component_of[example(row)],
  };
  function arrange() {
    if (state.by === "example") exampleRank ??= ranks(data.examples);
    if (!headings().some(([by]) => by === state.by)) { state.by = "z"; state.down = true; }
    const n = columns.length, all = new Uint32Array(pairs() ? n * M : n);
    if (pairs()) for (let i = 0, k = 0; i < M; i++) for (const j of columns) all[k++] = i * N + j;
    else all.set(columns);
    // A 64-bit integer each, the key above the place: sorted without a call for each comparison.
    const keys = Float32Array.from(all, SORT[state.by]), bits = new Uint32Array(keys.buffer);
    const packed = new BigUint64Array(all.length), halves = new Uint32Array(packed.buffer);
    for (let k = 0; k < all.length; k++) {
      const up = bits[k] >>> 31 ? ~bits[k] : bits[k] | 0x80000000; // orders as the floats do
      halves[2 * k] = k;
      halves[2 * k + 1] = keys[k] === keys[k] ? (state.down ? ~up : up) : 0xffffffff; // NaN last
    }
    packed.sort();
    rows = new Uint32Array(all.length);
    for (let k = 0; k < all.length; k++) rows[k] = all[halves[2 * k]];
    state.page = 0;
    if (state.chosen >= 0) {
      const at = rows.findIndex(row => example(row) === state.chosen);
      if (at >= 0) state.page = Math.floor(at / PAGE);
    }
    table();
    draw();
  }

  // ---- the table --------------------------------------------------------------------------------
  function headings() {
    const found = [["example", "example"], ["source", "source"]];
    if (pairs()) found.unshift(["task", "task"]);
    found.push(["z", state.task === "" && M > 1 ? "mean z" : "z"]);
    if (state.task === "" && M > 1) found.push(["share", "forgetting tasks"]);
    if (data.components.length) found.push(["component", "component"]);
    return found;
  }
  const cell = {
    task: row => data.tasks[Math.floor(row / N)],
    example: row => data.examples[example(row)],
    source: row => data.sources[data.source_of[example(row)]].name,
    z: row => shown(value(row)),
    share: row => Number.isFinite(share[row]) ? `${Math.round(100 * share[row])} %` : "–",
    component: row => data.component_of[example(row)] < 0 ? "–" : String(data.component_of[example(row)] + 1),
  };
  function table() {
    const head = headings(), tr = make("tr");
    for (const [by, title] of head) {
      const th = make("th", "", "z share component".includes(by) ? "number" : "");
      const button = make("button", title);
      th.scope = "col";
      if (by === state.by) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.type = "button";
      button.addEventListener("click", () => {
        state.down = by === state.by ? !state.down : by === "z" || by === "share";
        state.by = by; state.chosen = -1;
        arrange();
      });
      th.append(button);
      tr.append(th);
    }
    find("thead").replaceChildren(tr);
    const from = state.page * PAGE, body = [];
    for (const row of rows.subarray(from, from + PAGE)) {
      const line = make("tr", "", example(row) === state.chosen ? "chosen" : "");
      for (const [by] of head) {
        const td = make("td", cell[by](row), "z share component".includes(by) ? "number" : "");
        if (by === "example" && data.texts && data.texts[example(row)]) {
          const more = make("details");
          more.append(make("summary", td.textContent), make("p", data.texts[example(row)]));
          more.open = example(row) === state.chosen;
          td.replaceChildren(more);
        }
        line.append(td);
      }
      body.push(line);
    }
    find("tbody").replaceChildren(...body);
    const entries = pairs() ? "entries" : "examples", last = Math.min(from + PAGE, rows.length);
    find("output").textContent = rows.length
      ? `${(from + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${rows.length.toLocaleString("en")} ${entries}`
      : `no ${entries} like these`;
    find("[name=before]").disabled = !from;
    find("[name=after]").disabled = last >= rows.length;
  }
  const turn = pages => { state.page += pages; table(); };
  find("[name=before]").addEventListener("click", () => turn(-1));
  find("[name=after]").addEventListener("click", () => turn(1));

  const plain = v => Number.isFinite(v) ? String(Math.round(v * 1e7) / 1e7) : "";
  function csv() {
    const quoted = new Map(); // names come many times
    const quote = text => {
      if (!quoted.has(text)) quoted.set(text, /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
      return quoted.get(text);
    };
    const numbers = { z: row => plain(value(row)), share: row => plain(share[row]) };
    const names = headings().map(([by]) => by), lines = [names.join(",")];
    for (const row of rows) lines.push(names.map(by => numbers[by] ? numbers[by](row) : quote(cell[by](row))).join(","));
    return lines.join("\n") + "\n";
  }
  const names = () => [...new Set(Array.from(rows, row => data.examples[example(row)]))].join("\n");
  find("[name=csv]").addEventListener("click", () => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "forgetting.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  find("[name=copy]").addEventListener("click", async event => {
    const button = event.target, before = button.textContent;
    let done = true;
    try { await navigator.clipboard.writeText(names()); } catch { // refused, or no clipboard here
      const area = make("textarea", names());
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "copied" : "not copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  });

  for (const name of ["task", "source", "component", "query"]) {
    const input = find(`[name=${name}]`);
    if (!input) continue;
    input.value = ""; // a browser keeps what was chosen before the page was loaded again
    input.addEventListener("input", () => {
      state[name] = input.value; state.chosen = -1;
      select();
    });
  }
  root.querySelector("form").addEventListener("submit", event => event.preventDefault());

  // ---- the heatmap ------------------------------------------------------------------------------
  const pane = find(".heat-pane"), wide = find(".heat-wide"), canvas = find("canvas"), small = document.createElement("canvas");
  const rowPx = data.row_px, R = data.rows.length, H = R * rowPx;
  const perColumn = () => state.zoom || Math.min(28, pane.clientWidth / Math.max(columns.length, 1));

  function draw() {
    const p = perColumn(), n = columns.length, total = p * n;
    wide.style.width = state.zoom ? `${total}px` : "100%";
    const width = pane.clientWidth, left = pane.scrollLeft, dpr = devicePixelRatio || 1;
    const W = Math.max(1, Math.round(Math.min(width, total - left) * dpr));
    const ink = canvas.getContext("2d"), style = getComputedStyle(root);
    ink.font = `12px ${style.fontFamily}`;
    const STRIP = strip(ink, p);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${H + STRIP}px`;
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round((H + STRIP) * dpr);
    if (n) {
      small.width = W; small.height = R;
      const picture = small.getContext("2d").createImageData(W, R), pixels = new Uint32Array(picture.data.buffer);
      const from = new Uint32Array(W), to = new Uint32Array(W);
      for (let x = 0; x < W; x++) {
        from[x] = Math.min(n - 1, Math.floor((left + x / dpr) / p));
        to[x] = Math.min(n, Math.max(from[x] + 1, Math.floor((left + (x + 1) / dpr) / p)));
      }
      for (let r = 0; r < R; r++) {
        const start = data.rows[r] * N;
        for (let x = 0; x < W; x++) {
          let sum = 0, known = 0;
          for (let k = from[x]; k < to[x]; k++) {
            const v = z[start + columns[k]];
            if (v === v) { sum += v; known++; }
          }
          const level = Math.max(-1, Math.min(1, sum / known / data.limit));
          pixels[r * W + x] = colours[known ? Math.round((level + 1) * 127) : 255];
        }
      }
      small.getContext("2d").putImageData(picture, 0, 0);
      ink.imageSmoothingEnabled = false;
      ink.drawImage(small, 0, 0, W, R, 0, 0, W, Math.round(H * dpr));
    }
    ink.scale(dpr, dpr);
    if (state.task !== "" && !pairs()) {
      const r = data.rows.indexOf(Number(state.task));
      ink.strokeStyle = style.getPropertyValue("--ink");
      ink.lineWidth = 2;
      if (r >= 0) ink.strokeRect(1, r * rowPx, W / dpr - 2, rowPx);
    }
    label(ink, style, p, left, width);
  }

  const source = k => data.source_of[columns[k]];
  const fits = (ink, name, px) => ink.measureText(cut(name, 26)).width < px - 8;
  /** How much room the names need, wherever the picture is scrolled to. */
  function strip(ink, p) {
    if (p >= 13) return NAMES;
    let found = LINES;
    for (let k = 0, stop; k < columns.length; k = stop) {
      stop = k + 1;
      while (stop < columns.length && source(stop) === source(k)) stop++;
      const px = (stop - k) * p;
      if (fits(ink, data.sources[source(k)].name, px)) found = Math.max(found, ALONG);
      else if (px >= 13) return NAMES;
    }
    return found;
  }

  /** The lines between sources, and the names that there is room for. */
  function label(ink, style, p, left, width) {
    const n = columns.length, first = Math.floor(left / p), last = Math.min(n, Math.ceil((left + width) / p));
    const colour = name => style.getPropertyValue(name);
    ink.font = `12px ${style.fontFamily}`;
    ink.textBaseline = "middle";
    const along = (text, x) => { ink.textAlign = "center"; ink.fillText(text, x, H + 14); };
    const upright = (text, x) => {
      ink.save(); ink.translate(x, H + 8); ink.rotate(-Math.PI / 2);
      ink.textAlign = "right"; ink.fillText(text, 0, 0); ink.restore();
    };
    const each = p >= 13;
    for (let k = first; k < last;) {
      let stop = k + 1, start = k;
      while (stop < n && source(stop) === source(k)) stop++;
      while (start > 0 && source(start - 1) === source(k)) start--;
      const x = start * p - left, end = stop * p - left, found = data.sources[source(k)];
      if (start > 0) {
        const turns = found.mean <= 0 && data.sources[source(start - 1)].mean > 0;
        ink.fillStyle = turns ? "#000" : "rgba(31,36,41,.6)";
        if (turns || end - x > 9) ink.fillRect(x - (turns ? 1 : .5), 0, turns ? 3 : 1, H);
      }
      ink.fillStyle = colour("--muted");
      ink.fillRect(x + 1, H + 2, Math.max(end - x - 2, .5), 2);
      const low = Math.max(x, 0), high = Math.min(end, width), middle = (low + high) / 2;
      if (!each && fits(ink, found.name, high - low)) along(cut(found.name, 26), middle);
      else if (!each && high - low >= 13) upright(cut(found.name, 20), middle);
      k = stop;
    }
    if (each) for (let k = first; k < last; k++) upright(cut(data.examples[columns[k]], 20), (k + .5) * p - left);
  }

  const under = event => { // the row of the picture and the columns under the pointer
    const box = canvas.getBoundingClientRect(), p = perColumn(), x = event.clientX - box.left + pane.scrollLeft;
    const r = Math.floor((event.clientY - box.top) / rowPx), k = Math.floor(x / p);
    if (r < 0 || r >= R || k < 0 || k >= columns.length) return null;
    return [data.rows[r], columns.slice(k, Math.max(k + 1, Math.floor((x + 1) / p)))];
  };
  canvas.addEventListener("pointermove", hover);
  canvas.addEventListener("pointerdown", hover);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  function hover(event) {
    const found = under(event);
    tip.hidden = !found;
    if (!found) return;
    const [i, js] = found, values = js.map(j => z[i * N + j]);
    const known = values.filter(Number.isFinite), average = known.reduce((a, b) => a + b, 0) / known.length;
    const which = js.length === 1 ? data.examples[js[0]] : `${js.length} examples, ${data.examples[js[0]]} to ${data.examples[js[js.length - 1]]}`;
    const said = known.length ? `${js.length === 1 ? "" : "mean "}z = ${shown(average)}` : "not measured";
    tip.textContent = `${data.tasks[i]}\n${data.sources[data.source_of[js[0]]].name} · ${which}\n${said}`;
    const right = innerWidth - tip.offsetWidth - 8, below = event.clientY + 18;
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, right)) + "px";
    tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below) + "px";
  }
  canvas.addEventListener("click", event => { // a cell's example is shown in the table, under its task
    const found = under(event);
    if (!found) return;
    const [i, js] = found, size = j => Math.abs(z[i * N + j]) || 0;
    state.chosen = js.reduce((a, b) => size(b) > size(a) ? b : a);
    if (M > 1) find("[name=task]").value = state.task = String(i);
    arrange();
  });

  function zoom(factor) {
    const before = perColumn(), middle = (pane.scrollLeft + pane.clientWidth / 2) / before;
    const fit = pane.clientWidth / Math.max(columns.length, 1);
    const wanted = factor ? Math.min(28, before * factor) : 0;
    state.zoom = wanted > fit ? wanted : 0;
    draw();
    pane.scrollLeft = middle * perColumn() - pane.clientWidth / 2;
  }
  find("[name=closer]").addEventListener("click", () => zoom(2));
  find("[name=further]").addEventListener("click", () => zoom(0.5));
  find("[name=fit]").addEventListener("click", () => zoom(0));
  let waiting = false;
  const soon = () => {
    if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
    waiting = true;
  };
  pane.addEventListener("scroll", () => { tip.hidden = true; soon(); }, { passive: true });
  new ResizeObserver(soon).observe(pane);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  addEventListener("beforeprint", draw);

  root.classList.add("ready"); // shown, and so as wide as it will be
  select();
  root.explorer = { state, select, csv, names, draw, zoom }; // for tests, and for a reader's console
}

for (const held of document.querySelectorAll("script[data-matrix]"))
  forgetJax(held.dataset.matrix, JSON.parse(held.textContent));
