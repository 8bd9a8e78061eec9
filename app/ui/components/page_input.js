// Ways to ask from anywhere on the page: paste a picture or its URL, drop a file or an image of
// another page, "/" to type, the camera of a phone. Files go through Streamlit's upload widget and
// so through its limits.

const INPUT = '[data-testid="stFileUploaderDropzone"]:not([aria-disabled="true"]) input';
const UPLOAD = '[data-testid="stFileUploaderDropzone"] button';
const CAMERA = '[class*="st-key-camera_box"] button';
const FIELD = '[class*="st-key-search_words"] input';

const WAIT_MS = 60_000;

function upload(files) {
  if (!files.length) return false;
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  withInput((input) => {
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  return true;
}

// The upload widget's own file may be loaded later than this one, and it is disabled for a moment
// when the connection is lost.
function withInput(act) {
  const input = document.querySelector(INPUT);
  if (input) { act(input); return; }
  const observer = new MutationObserver(() => {
    const drawn = document.querySelector(INPUT);
    if (!drawn) return;
    observer.disconnect();
    act(drawn);
  });
  observer.observe(document.body, {
    subtree: true, childList: true, attributeFilter: ["aria-disabled"],
  });
  setTimeout(() => observer.disconnect(), WAIT_MS);
}

function takePhoto() {
  const camera = document.createElement("input");
  camera.type = "file";
  camera.accept = "image/*";
  camera.setAttribute("capture", "environment");
  camera.onchange = () => upload([...camera.files]);
  camera.click();
}

function isTyping() {
  const active = document.activeElement;
  return active && (active.isContentEditable || /^(input|textarea|select)$/i.test(active.tagName));
}

function dialogIsOpen() {
  return document.querySelector('[role="dialog"][aria-modal="true"]') !== null;
}

export default function (component) {
  window.lookalikeInput?.(); // a component drawn again begins before the former one ends
  const stops = [];
  const on = (name, handler, capture = false) => {
    document.addEventListener(name, handler, capture);
    stops.push(() => document.removeEventListener(name, handler, capture));
  };
  const cover = document.createElement("div");
  cover.className = "lookalike-drop";
  cover.textContent = component.data.drop;
  cover.hidden = true;
  document.body.append(cover);
  const address = (text) => component.setTriggerValue("address", text);
  let inside = 0;
  const hide = () => { inside = 0; cover.hidden = true; };
  const carries = (event) => [...(event.dataTransfer?.types ?? [])]
    .some((type) => type === "Files" || type === "text/uri-list");

  on("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (upload(files)) { event.preventDefault(); return; }
    const text = event.clipboardData?.getData("text/plain").trim() ?? "";
    if (!isTyping() && /^https?:\/\/\S+$/i.test(text)) address(text);
  });
  on("dragenter", (event) => {
    if (!carries(event)) return;
    inside += 1;
    cover.hidden = false;
  });
  on("dragleave", () => { inside -= 1; if (inside <= 0) hide(); });
  on("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  on("drop", (event) => {
    hide();
    if (event.target.closest?.('[data-testid="stFileUploaderDropzone"]')) return;
    if (!carries(event)) return;
    event.preventDefault();
    if (upload([...event.dataTransfer.files])) return;
    const text = event.dataTransfer.getData("text/uri-list").split("\n")[0].trim();
    if (text) address(text);
  });
  // A dialog hears Escape only while something in it has the focus, which a download takes away.
  on("keydown", (event) => {
    if (event.key !== "Escape" || document.activeElement !== document.body) return;
    document.querySelector('[role="dialog"] > button[aria-label]')?.click();
  });
  on("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTyping() || dialogIsOpen()) return;
    const field = document.querySelector(FIELD);
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  });

  // A phone has an app for its camera, which opens at once and asks for no permission.
  on("click", (event) => {
    if (!event.target.closest?.(CAMERA) || !matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    event.stopPropagation(); // Streamlit would open its own
    takePhoto();
  }, true);

  // Streamlit has the label of its upload button in English only; see css.upload_label.
  const name = () => {
    const button = document.querySelector(UPLOAD);
    if (button && button.ariaLabel !== component.data.upload) {
      button.ariaLabel = component.data.upload;
    }
  };
  const observer = new MutationObserver(name);
  observer.observe(document.body, { subtree: true, childList: true });
  stops.push(() => observer.disconnect());
  name();

  const stop = () => {
    if (window.lookalikeInput !== stop) return;
    delete window.lookalikeInput;
    cover.remove();
    for (const undo of stops) undo();
  };
  window.lookalikeInput = stop;
  return stop;
}
