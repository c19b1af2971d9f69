/** One line at the bottom: what is under way, how far, what went wrong, how much memory is taken. */
import { QUIET_KEYS, html } from "../html.js";
import { JobLine } from "../parts/index.js";

/** Bytes in words: 640 MB, 3.2 GB. */
export function size(bytes) {
  if (bytes < 1e9) return `${Math.round(bytes / 1e6)} MB`;
  return `${(bytes / 1e9).toFixed(bytes < 1e10 ? 1 : 0)} GB`;
}

/** The job that the line tells of: the one that runs, else the first that waits. */
export function current(jobs) {
  return jobs.find((job) => job.state === "running") ?? jobs.find((job) => job.state === "queued") ?? null;
}

/** @param {{ bench: import("../store.js").Bench }} props */
export function Status({ bench }) {
  const jobs = bench.jobs.value;
  const job = current(jobs);
  const waiting = jobs.filter((other) => other.state === "queued" && other !== job).length;
  const memory = bench.memory.value;
  return html`<footer class="wb-status">
    <div class="wb-status-job" role="status">
      ${job ? html`<${JobLine} key=${job.id} bench=${bench} job=${job} />` : html`<span class="wb-note">${idle(bench)}</span>`}
      ${waiting > 0 && html`<span class="wb-note">and ${waiting} waiting</span>`}
    </div>
    <${Notice} bench=${bench} />
    ${memory && html`<span class="wb-note wb-memory" title="memory of the kernel's process, of all that the machine has">
      memory ${size(memory.used)} of ${size(memory.total)}</span>`}
  </footer>`;
}

function idle(bench) {
  if (!bench.connected.value) return "The kernel does not answer. Is it running? Run the cell again.";
  return bench.state.value?.running ? "Running the model…" : "Ready";
}

function Notice({ bench }) {
  const notice = bench.notice.value;
  if (!notice) return null;
  const wrong = notice.kind === "error";
  return html`<span class=${wrong ? "wb-notice wb-error-text" : "wb-notice"} role=${wrong ? "alert" : "status"}>
    ${wrong && html`<strong>Error: </strong>`}<bdi>${notice.text}</bdi>
    <button type="button" class="wb-close" aria-label="Dismiss" onClick=${() => (bench.notice.value = null)} ...${QUIET_KEYS}>×</button>
  </span>`;
}
