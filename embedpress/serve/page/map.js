// The map of the latents on a canvas: all points faint in the colour of their group, hits lit.

const NEAR = 10; // CSS pixels
const CELL = 64; // cells a side of the grid in which the nearest point is looked up

function numbers(text, Kind) {
  const raw = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Kind(raw.buffer);
}

export class LatentMap {
  constructor(canvas, tip, drawing, { label, chosen, pointed }) {
    this.canvas = canvas;
    this.tip = tip;
    this.label = label;
    this.pointed = pointed;
    this.x = Float32Array.from(numbers(drawing.x, Uint16Array), (value) => value / 65535);
    this.y = Float32Array.from(numbers(drawing.y, Uint16Array), (value) => 1 - value / 65535);
    this.group = numbers(drawing.group, Uint16Array);
    this.row = numbers(drawing.row, Uint32Array);
    this.names = drawing.groups;
    this.hits = [];
    this.lit = null;
    this.view = { scale: 1, x: 0.5, y: 0.5 };
    this.index();
    this.titles = this.nameGroups();
    this.paint();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.paint();
      this.draw();
    });
    this.listen(chosen);
  }

  // Points by group, so that the colour changes once a group and not once a point.
  paint() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.colors = this.names.map((_, i) => {
      const hue = (i * 360 * 0.618034 + 30) % 360;
      return `hsl(${hue.toFixed(0)} ${dark ? "62% 62%" : "58% 42%"})`;
    });
    this.faint = dark ? 0.75 : 0.55;
    this.order = Uint32Array.from(this.x, (_, i) => i).sort((a, b) => this.group[a] - this.group[b]);
  }

  index() {
    this.cells = new Map();
    for (let i = 0; i < this.x.length; i++) {
      const key = this.cell(this.x[i], this.y[i]);
      if (!this.cells.has(key)) this.cells.set(key, []);
      this.cells.get(key).push(i);
    }
  }

  // Where the names of groups stand: the middle of each, the largest first. Numbers name nothing.
  nameGroups() {
    const members = this.names.map(() => []);
    for (let i = 0; i < this.x.length; i++) members[this.group[i]]?.push(i);
    const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    return this.names
      .map((name, group) => ({ name, group, size: members[group].length }))
      .filter(({ name, size }) => size && !/^\d*$/.test(name))
      .sort((a, b) => b.size - a.size)
      .map((title) => ({
        ...title,
        x: middle(members[title.group].map((i) => this.x[i])),
        y: middle(members[title.group].map((i) => this.y[i])),
      }));
  }

  cell(x, y) {
    return Math.min(CELL - 1, Math.floor(x * CELL)) * CELL + Math.min(CELL - 1, Math.floor(y * CELL));
  }

  light(records) {
    this.hits = records
      .map((record, place) => ({ place, point: record.point }))
      .filter((hit) => hit.point)
      .map(({ place, point }) => ({ place, x: point[0], y: 1 - point[1] }));
    this.lit = null;
    const lit = this.hits.length;
    this.canvas.setAttribute(
      "aria-label",
      `Map of ${this.x.length} latents${lit ? `; ${lit} hits are lit` : ""}`,
    );
    this.draw();
  }

  point(place) {
    this.lit = place;
    this.draw();
  }

  zoom(factor, at = { x: this.view.x, y: this.view.y }) {
    const scale = Math.min(40, Math.max(1, this.view.scale * factor));
    const kept = this.view.scale / scale;
    this.view = {
      scale,
      x: at.x + (this.view.x - at.x) * kept,
      y: at.y + (this.view.y - at.y) * kept,
    };
    if (scale === 1) this.reset();
    else this.draw();
  }

  reset() {
    this.view = { scale: 1, x: 0.5, y: 0.5 };
    this.draw();
  }

  // From the map's unit square to CSS pixels, and back.
  frame() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const side = 0.94 * Math.min(width, height) * this.view.scale;
    return { width, height, side, left: width / 2 - this.view.x * side, top: height / 2 - this.view.y * side };
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.drawNow();
    });
  }

  drawNow() {
    const frame = this.frame();
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [Math.round(frame.width * ratio), Math.round(frame.height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, frame.width, frame.height);
    this.drawPoints(context, frame);
    this.drawTitles(context, frame);
    this.drawHits(context, frame);
  }

  drawPoints(context, { side, left, top, width, height }) {
    const crowded = Math.sqrt(8000 / Math.max(1, this.x.length));
    const size = Math.min(4, Math.max(0.9, 2.2 * Math.min(1, crowded)) * Math.sqrt(this.view.scale));
    context.globalAlpha = this.faint * (this.hits.length ? 0.6 : 1);
    let group = -1;
    for (const i of this.order) {
      const x = left + this.x[i] * side, y = top + this.y[i] * side;
      if (x < 0 || y < 0 || x > width || y > height) continue;
      if (this.group[i] !== group) {
        group = this.group[i];
        context.fillStyle = this.colors[group];
      }
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
    context.globalAlpha = 1;
  }

  drawTitles(context, { side, left, top, width, height }) {
    const [ground, ink] = this.inks("--map", "--ink");
    const taken = [];
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 3.5;
    context.strokeStyle = ground;
    context.fillStyle = ink;
    context.globalAlpha = this.hits.length ? 0.7 : 0.9;
    for (const { name, x, y } of this.titles) {
      const half = context.measureText(name).width / 2 + 4;
      const at = { x: left + x * side, y: top + y * side };
      if (at.x < half || at.y < 8 || at.x > width - half || at.y > height - 8) continue;
      if (taken.some((one) => Math.abs(one.x - at.x) < one.half + half && Math.abs(one.y - at.y) < 15)) continue;
      taken.push({ ...at, half });
      context.strokeText(name, at.x, at.y);
      context.fillText(name, at.x, at.y);
    }
    context.globalAlpha = 1;
  }

  inks(...names) {
    const style = getComputedStyle(this.canvas);
    return names.map((name) => style.getPropertyValue(name));
  }

  drawHits(context, { side, left, top }) {
    const [glow, ground, ink] = this.inks("--glow", "--map", "--ink");
    // The first hit is drawn last, over the others; the one pointed at over all.
    const order = [...this.hits].reverse().sort((a, b) => (a.place === this.lit) - (b.place === this.lit));
    context.font = "700 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const hit of order) {
      const x = left + hit.x * side, y = top + hit.y * side;
      const pointed = hit.place === this.lit;
      context.beginPath();
      context.arc(x, y, pointed ? 22 : 15, 0, 7);
      context.globalAlpha = 0.22;
      context.fillStyle = glow;
      context.fill();
      context.globalAlpha = 1;
      context.beginPath();
      context.arc(x, y, pointed ? 12 : 8.5, 0, 7);
      context.fillStyle = pointed ? ink : glow;
      context.fill();
      context.lineWidth = 1.5;
      context.strokeStyle = ground;
      context.stroke();
      context.fillStyle = pointed ? ground : "#1d1a16";
      context.fillText(String(hit.place + 1), x, y + 0.5);
    }
  }

  // The hit, or else the point, under the pointer.
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = { x: event.clientX - box.left, y: event.clientY - box.top };
    const { side, left, top } = this.frame();
    const away = (x, y) => Math.hypot(left + x * side - at.x, top + y * side - at.y);
    const hit = this.hits.find((one) => away(one.x, one.y) < NEAR);
    const inMap = { x: (at.x - left) / side, y: (at.y - top) / side };
    const found = { at, inMap, hit, row: null };
    let best = NEAR;
    const reach = NEAR / side;
    for (let cx = Math.floor((inMap.x - reach) * CELL); cx <= (inMap.x + reach) * CELL; cx++)
      for (let cy = Math.floor((inMap.y - reach) * CELL); cy <= (inMap.y + reach) * CELL; cy++)
        for (const i of this.cells.get(cx * CELL + cy) ?? []) {
          const distance = away(this.x[i], this.y[i]);
          if (distance < best) [best, found.row] = [distance, this.row[i]];
        }
    return found;
  }

  listen(chosen) {
    let drag = null, hovered = null;
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && this.view.scale === 1 && event.deltaY > 0) return;
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.under(event).inMap);
    }, { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => {
      drag = { x: event.clientX, y: event.clientY, view: { ...this.view }, moved: false };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (drag && this.view.scale > 1) {
        const { side } = this.frame();
        const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
        drag.moved ||= Math.hypot(dx, dy) > 4;
        this.view = { ...drag.view, x: drag.view.x - dx / side, y: drag.view.y - dy / side };
        this.draw();
        return;
      }
      const found = this.under(event);
      const place = found.hit?.place ?? null;
      if (place !== this.lit) this.pointed(place);
      if (found.row === hovered) return;
      hovered = found.row;
      this.tip.hidden = true;
      clearTimeout(this.hovering);
      if (hovered !== null) this.hovering = setTimeout(() => this.showTip(found), 120);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const moved = drag?.moved;
      drag = null;
      const { row } = this.under(event);
      if (!moved && row !== null) chosen(row);
    });
    this.canvas.addEventListener("pointerleave", () => {
      hovered = null;
      clearTimeout(this.hovering);
      this.tip.hidden = true;
    });
  }

  async showTip({ at, row }) {
    this.tip.textContent = await this.label(row);
    this.tip.hidden = false;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const x = Math.min(at.x + 12, width - this.tip.offsetWidth - 8);
    const y = at.y + 16 + this.tip.offsetHeight > height ? at.y - this.tip.offsetHeight - 10 : at.y + 16;
    this.tip.style.transform = `translate(${Math.max(8, x)}px, ${Math.max(8, y)}px)`;
  }
}
