// The query photo with the part of it that is searched: a box to draw, move and resize by mouse,
// touch and keyboard, and the objects that were found as boxes to choose.
//
// data: {image, alt, box, objects, labels, hint, texts}; boxes are [left, top, right, bottom] in percent.
// Triggers `box` with such a list, or with null for the whole photo.

const LEAST = 4; // percent of a side: a smaller box is taken for a slip
const STEP = 2; // percent for each press of an arrow key
const COMMIT_MS = 500; // a search follows the last key, not each
const CLICK_PX = 6;

const limit = (value, low, high) => Math.min(Math.max(value, low), high);

function element(name, className, parent) {
  const made = document.createElement(name);
  made.className = className;
  parent.append(made);
  return made;
}

class PhotoBox {
  constructor(root) {
    this.frame = element("div", "frame", root);
    this.image = element("img", "", this.frame);
    this.objects = element("div", "objects", this.frame);
    this.box = element("div", "box", this.frame);
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    for (const corner of ["lt", "rt", "lb", "rb"]) {
      element("span", "handle " + corner, this.box).dataset.corner = corner;
    }
    this.larger = element("button", "larger", root);
    this.larger.type = "button";
    this.larger.onclick = () => this.enlarge(!root.host.classList.contains("large"));
    this.hint = element("div", "hint", root);
    this.root = root;
    this.frame.onpointerdown = (event) => this.start(event);
    this.box.onkeydown = (event) => this.key(event);
    this.enlarge(false);
  }

  show(data, send) {
    this.data = data;
    this.send = send;
    if (this.image.src !== data.image) this.image.src = data.image;
    this.image.alt = data.alt;
    this.image.draggable = false;
    this.objects.replaceChildren();
    data.objects.forEach((box, place) => this.offer(box, data.labels[place], place + 1));
    this.hint.textContent = data.hint;
    this.current = data.box;
    this.enlarge(this.root.host.classList.contains("large")); // in the language of the page
    this.draw();
  }

  offer(box, label, number) {
    const button = element("button", "object", this.objects);
    button.dataset.number = number; // of its button above the results
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.onclick = () => this.commit(box);
    this.place(button, box);
  }

  place(target, [left, top, right, bottom]) {
    target.style.left = left + "%";
    target.style.top = top + "%";
    target.style.width = right - left + "%";
    target.style.height = bottom - top + "%";
  }

  draw() {
    const box = this.current;
    this.frame.classList.toggle("whole", !box);
    this.place(this.box, box ?? [0, 0, 100, 100]);
    const [left, top, right, bottom] = box ?? [];
    const texts = this.data.texts;
    const edges = { left, top, right, bottom };
    const now = box ? texts.box.replace(/\{(\w+)\}/g, (_, edge) => edges[edge]) : texts.whole;
    this.box.setAttribute("aria-label", `${now} ${texts.keys}`);
  }

  enlarge(large) {
    this.root.host.classList.toggle("large", large);
    if (this.data) this.larger.textContent = large ? this.data.texts.done : this.data.texts.draw;
  }

  commit(box) {
    clearTimeout(this.waiting);
    const rounded = box && box.map(Math.round);
    this.current = rounded;
    this.draw();
    if (JSON.stringify(rounded) !== JSON.stringify(this.data.box)) this.send(rounded);
  }

  at(event) {
    const area = this.frame.getBoundingClientRect();
    return [
      limit((100 * (event.clientX - area.left)) / area.width, 0, 100),
      limit((100 * (event.clientY - area.top)) / area.height, 0, 100),
    ];
  }

  start(event) {
    if (event.button !== 0 || !this.drawable()) return;
    const from = this.at(event);
    const kept = this.current;
    const drag = this.drag(event.target, from, kept);
    const first = [event.clientX, event.clientY];
    let moved = false;
    const move = (now) => {
      moved ||= Math.hypot(now.clientX - first[0], now.clientY - first[1]) > CLICK_PX;
      if (!moved) return;
      this.frame.setPointerCapture(now.pointerId);
      this.current = drag(this.at(now));
      this.draw();
    };
    const end = (now) => {
      for (const name of ["pointermove", "pointerup", "pointercancel"]) {
        this.frame.removeEventListener(name, name === "pointermove" ? move : end);
      }
      if (!moved) return;
      const [left, top, right, bottom] = this.current;
      const slip = right - left < LEAST || bottom - top < LEAST;
      this.commit(now.type === "pointercancel" || slip ? kept : this.current);
    };
    this.frame.addEventListener("pointermove", move);
    this.frame.addEventListener("pointerup", end);
    this.frame.addEventListener("pointercancel", end);
  }

  // On a small touch screen a finger scrolls over the photo until it is enlarged.
  drawable() {
    return getComputedStyle(this.larger).display === "none" ||
      this.root.host.classList.contains("large");
  }

  drag(target, [x, y], box) {
    const corner = target.dataset?.corner;
    if (box && corner) {
      const [left, top, right, bottom] = box;
      const fixed = [corner[0] === "l" ? right : left, corner[1] === "t" ? bottom : top];
      return (to) => this.between(fixed, to);
    }
    if (box && target === this.box) {
      return ([toX, toY]) => this.moved(box, toX - x, toY - y);
    }
    return (to) => this.between([x, y], to);
  }

  between([x1, y1], [x2, y2]) {
    return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
  }

  moved([left, top, right, bottom], x, y) {
    const dx = limit(x, -left, 100 - right);
    const dy = limit(y, -top, 100 - bottom);
    return [left + dx, top + dy, right + dx, bottom + dy];
  }

  key(event) {
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP],
                 ArrowDown: [0, STEP] }[event.key];
    if (event.key === "Escape" || event.key === "Delete") {
      if (!this.current) return;
      this.commit(null);
    } else if (event.key === "Enter") {
      if (this.current) return;
      this.commit([20, 20, 80, 80]);
    } else if (by) {
      const [left, top, right, bottom] = this.current ?? [10, 10, 90, 90];
      this.current = event.shiftKey
        ? [left, top, limit(right + by[0], left + LEAST, 100),
           limit(bottom + by[1], top + LEAST, 100)]
        : this.moved([left, top, right, bottom], ...by);
      this.draw();
      clearTimeout(this.waiting);
      const box = this.current;
      this.waiting = setTimeout(() => this.commit(box), COMMIT_MS);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

export default function (component) {
  const root = component.parentElement;
  root.photoBox ??= new PhotoBox(root);
  root.photoBox.show(component.data, (box) => component.setTriggerValue("box", { edges: box }));
}
