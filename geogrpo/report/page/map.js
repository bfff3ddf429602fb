"use strict";

// An equirectangular world on a canvas: land, an arc from each truth to its answer, zoom, pan and picking.
// Points are [lat, lon] degrees; x is longitude, which may pass 180: the world repeats to the left and right.

const DEG = Math.PI / 180;
const EARTH_RADIUS_KM = 6371.0088;
const MAX_PIXELS_PER_DEG = 400;
const PICK_PIXELS = 12;

function toVector([lat, lon]) {
  const ring = Math.cos(lat * DEG);
  return [ring * Math.cos(lon * DEG), ring * Math.sin(lon * DEG), Math.sin(lat * DEG)];
}

function toPoint([x, y, z]) {
  return [Math.atan2(z, Math.hypot(x, y)) / DEG, Math.atan2(y, x) / DEG];
}

// Longitudes of a line without jumps: each the nearest to the one before.
function unwrapped(points) {
  let before = points[0][1];
  return points.map(([lat, lon]) => {
    before = lon + 360 * Math.round((before - lon) / 360);
    return [lat, before];
  });
}

function greatCircle(a, b) {
  const u = toVector(a), v = toVector(b);
  const dot = u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const angle = Math.acos(Math.max(-1, Math.min(1, dot)));
  // Next to antipodes every direction is as short, and sin(angle) is no divisor.
  if (angle < 1e-6 || angle > Math.PI - 1e-6) return unwrapped([a, b]);
  const count = Math.max(2, Math.ceil(angle / DEG / 3));
  const points = [];
  for (let i = 0; i <= count; i++) {
    const from = Math.sin((1 - i / count) * angle), to = Math.sin((i / count) * angle);
    points.push(toPoint(u.map((part, axis) => (from * part + to * v[axis]) / Math.sin(angle))));
  }
  return unwrapped(points);
}

function circleAround([lat, lon], radiusKm) {
  const angle = Math.min(radiusKm / EARTH_RADIUS_KM, Math.PI);
  const points = [];
  for (let bearing = 0; bearing <= 360; bearing += 4) {
    const sinLat = Math.sin(lat * DEG) * Math.cos(angle)
      + Math.cos(lat * DEG) * Math.sin(angle) * Math.cos(bearing * DEG);
    const y = Math.sin(bearing * DEG) * Math.sin(angle) * Math.cos(lat * DEG);
    const x = Math.cos(angle) - Math.sin(lat * DEG) * sinLat;
    points.push([Math.asin(Math.max(-1, Math.min(1, sinLat))) / DEG, lon + Math.atan2(y, x) / DEG]);
  }
  return unwrapped(points);
}

// Rings of land.json (x, y, then steps) as a path in degrees, north up.
function landPath(rings, unitsPerDeg, isClosed) {
  const path = new Path2D();
  for (const ring of rings) {
    let x = 0, y = 0;
    for (let i = 0; i < ring.length; i += 2) {
      x += ring[i];
      y += ring[i + 1];
      if (i === 0) path.moveTo(x / unitsPerDeg, -y / unitsPerDeg);
      else path.lineTo(x / unitsPerDeg, -y / unitsPerDeg);
    }
    if (isClosed) path.closePath();
  }
  return path;
}

class WorldMap {
  // onPick(example) when one is clicked; onHover(example or null, x, y) as the pointer moves.
  constructor(canvas, land, { numClasses, onPick, onHover }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.land = landPath(land.land, land.units_per_deg, true);
    this.borders = landPath(land.borders, land.units_per_deg, false);
    this.numClasses = numClasses;
    this.onPick = onPick;
    this.onHover = onHover;
    this.examples = [];
    this.selected = null;
    this.picture = null;
    this.arcs = new Map();
    this.pointers = new Map();
    this.frame = 0;
    this.size = { width: 0, height: 0 };
    this.view = { lat: 12, lon: 8, scale: 0 };
    this.readColors();
    this.listen();
  }

  show(examples) {
    this.examples = examples;
    this.redraw();
  }

  select(example) {
    this.selected = example;
    this.redraw();
  }

  // An equirectangular picture under everything; null for the land's outline.
  setPicture(picture) {
    this.picture = picture;
    this.canvas.classList.toggle("over-picture", picture !== null);
    this.readColors();
    this.redraw();
  }

  // All the way out: the whole world, or as much of it as fills a frame that is taller than half its width.
  reset() {
    this.view = { lat: 12, lon: 8, scale: 0 };
    this.move(0, 0);
  }

  // Zoom so that the point at (x, y), or the middle, stays where it is.
  zoom(factor, x = this.size.width / 2, y = this.size.height / 2) {
    const before = this.view.scale;
    const scale = Math.min(Math.max(before * factor, this.minScale()), MAX_PIXELS_PER_DEG);
    const right = x - this.size.width / 2, down = y - this.size.height / 2;
    this.view.lon += right / before - right / scale;
    this.view.lat -= down / before - down / scale;
    this.view.scale = scale;
    this.move(0, 0);
  }

  // Pan by pixels, no farther than the poles.
  move(right, down) {
    const view = this.view;
    view.scale = Math.max(view.scale, this.minScale());
    view.lon -= right / view.scale;
    view.lon -= 360 * Math.round(view.lon / 360);
    const reach = 90 - this.size.height / 2 / view.scale;
    view.lat = Math.min(Math.max(view.lat + down / view.scale, -reach), reach);
    this.redraw();
  }

  minScale() {
    return Math.max(this.size.width / 360, this.size.height / 180);
  }

  toPixels(lat, lon) {
    const { width, height } = this.size;
    return [width / 2 + (lon - this.view.lon) * this.view.scale, height / 2 - (lat - this.view.lat) * this.view.scale];
  }

  // The shown example whose truth or answer is nearest to a pixel, if near enough.
  exampleAt(x, y) {
    let nearest = null, least = PICK_PIXELS;
    for (const example of this.examples) {
      for (const point of [example.truth, example.predicted]) {
        if (!point) continue;
        const [left, top] = this.toPixels(point[0], point[1]);
        const turn = 360 * this.view.scale;
        const right = x - left - turn * Math.round((x - left) / turn);
        const distance = Math.hypot(right, y - top);
        if (distance < least) [nearest, least] = [example, distance];
      }
    }
    return nearest;
  }

  readColors() {
    const style = getComputedStyle(this.canvas);
    const read = (name) => style.getPropertyValue(name).trim();
    this.colors = { sea: read("--sea"), land: read("--land"), border: read("--border"), text: read("--text"),
      paper: read("--paper"), none: read("--error-none") };
    this.errorColors = Array.from({ length: this.numClasses }, (_, i) => read(`--error-${i}`));
  }

  resize() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const isWhole = this.view.scale <= this.minScale();
    this.size = { width, height };
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    if (isWhole) this.reset();
    else this.move(0, 0);
  }

  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { width, height } = this.size;
    if (!width) return;
    const { context, view } = this;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.fillStyle = this.colors.sea;
    context.fillRect(0, 0, width, height);
    const half = width / 2 / view.scale;
    const turns = [-360, 0, 360].filter((turn) => view.lon - half < turn + 180 && view.lon + half > turn - 180);
    for (const turn of turns) this.drawGround(turn);
    for (const turn of [-360, 0, 360]) this.drawArcs(turn);
    for (const turn of turns) this.drawDots(turn);
    if (this.selected) for (const turn of [-360, 0, 360]) this.drawSelected(turn);
  }

  drawGround(turn) {
    const { context, view } = this;
    const [x, y] = this.toPixels(0, turn);
    context.save();
    context.translate(x, y);
    context.scale(view.scale, view.scale);
    if (this.picture) {
      context.drawImage(this.picture, -180, -90, 360, 180);
    } else {
      context.fillStyle = this.colors.land;
      context.fill(this.land, "evenodd");
    }
    context.strokeStyle = this.colors.border;
    context.lineWidth = 0.75 / view.scale;
    context.stroke(this.borders);
    context.restore();
  }

  drawArcs(turn) {
    const { context } = this;
    context.lineWidth = 1;
    context.globalAlpha = this.examples.length > 400 ? 0.32 : 0.55;
    // The farthest first, so that near answers lie on top
    for (let errorClass = this.numClasses - 1; errorClass >= 0; errorClass--) {
      context.strokeStyle = this.errorColors[errorClass];
      context.beginPath();
      for (const example of this.examples) {
        if (example.errorClass === errorClass && example.predicted) this.trace(this.arcOf(example), turn);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawDots(turn) {
    const { context, view } = this;
    const radius = Math.min(5, 2 + Math.log2(view.scale / this.minScale()) * 0.6);
    for (const example of [...this.examples].sort((a, b) => b.errorClass - a.errorClass)) {
      const color = example.predicted ? this.errorColors[example.errorClass] : this.colors.none;
      this.dot(example.truth, turn, radius, color);
      if (example.predicted) this.ring(example.predicted, turn, radius * 0.8, color, 1);
    }
  }

  drawSelected(turn) {
    const { context, selected, colors } = this;
    const color = selected.predicted ? this.errorColors[selected.errorClass] : colors.none;
    if (selected.predicted) {
      this.stroke(this.arcOf(selected), turn, colors.paper, 5);
      this.stroke(this.arcOf(selected), turn, color, 2.5);
      context.setLineDash([4, 3]);
      for (const radiusKm of [selected.radius_50_km, selected.radius_90_km]) {
        if (radiusKm) this.stroke(circleAround(selected.predicted, radiusKm), turn, colors.text, 1.25);
      }
      context.setLineDash([]);
      this.dot(selected.predicted, turn, 6.5, colors.paper);
      this.ring(selected.predicted, turn, 5, color, 2.5);
    }
    this.dot(selected.truth, turn, 8, colors.paper);
    this.dot(selected.truth, turn, 6, color);
  }

  arcOf(example) {
    if (!this.arcs.has(example)) this.arcs.set(example, greatCircle(example.truth, example.predicted));
    return this.arcs.get(example);
  }

  trace(points, turn) {
    points.forEach(([lat, lon], i) => {
      const [x, y] = this.toPixels(lat, lon + turn);
      if (i === 0) this.context.moveTo(x, y);
      else this.context.lineTo(x, y);
    });
  }

  stroke(points, turn, color, width) {
    this.context.beginPath();
    this.trace(points, turn);
    this.context.strokeStyle = color;
    this.context.lineWidth = width;
    this.context.stroke();
  }

  dot([lat, lon], turn, radius, color) {
    this.context.beginPath();
    this.context.arc(...this.toPixels(lat, lon + turn), radius, 0, 2 * Math.PI);
    this.context.fillStyle = color;
    this.context.fill();
  }

  ring([lat, lon], turn, radius, color, width) {
    this.context.beginPath();
    this.context.arc(...this.toPixels(lat, lon + turn), radius, 0, 2 * Math.PI);
    this.context.strokeStyle = color;
    this.context.lineWidth = width;
    this.context.stroke();
  }

  listen() {
    const { canvas } = this;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColors();
      this.redraw();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.002), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.pressKey(event));
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, moved: 0 });
    });
    canvas.addEventListener("pointermove", (event) => this.movePointer(event));
    canvas.addEventListener("pointerup", (event) => {
      const pointer = this.pointers.get(event.pointerId);
      this.pointers.delete(event.pointerId);
      const example = pointer && pointer.moved < 4 && this.exampleAt(event.offsetX, event.offsetY);
      if (example) this.onPick(example);
    });
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.onHover(null, 0, 0));
  }

  movePointer(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) {
      this.onHover(this.exampleAt(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
      return;
    }
    const right = event.offsetX - pointer.x, down = event.offsetY - pointer.y;
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const before = Math.hypot(pointer.x - other.x, pointer.y - other.y);
      const after = Math.hypot(event.offsetX - other.x, event.offsetY - other.y);
      if (before > 0) this.zoom(after / before, other.x, other.y);
    } else {
      this.move(right, down);
    }
    pointer.moved += Math.hypot(right, down);
    pointer.x = event.offsetX;
    pointer.y = event.offsetY;
    this.onHover(null, 0, 0);
  }

  pressKey(event) {
    const actions = {
      ArrowLeft: () => this.move(60, 0), ArrowRight: () => this.move(-60, 0),
      ArrowUp: () => this.move(0, 60), ArrowDown: () => this.move(0, -60),
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.reset(),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
  }
}
