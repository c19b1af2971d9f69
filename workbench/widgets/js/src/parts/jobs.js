/** Long work: how far, how fast, how long still; Cancel and Resume. */
import { html, useMemo } from "../html.js";
import { short } from "../draw/scales.js";
import { Button } from "./controls.js";

/** Seconds in words: 3 s, 2 min 10 s, 1 h 5 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 1) return "< 1 s";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** What a job's numbers say: "120 of 400 · 35 a second · 8 s left". */
export function progressText({ done, total, rate, left, state }) {
  const parts = [];
  if (state === "queued") return "waiting";
  if (total) parts.push(`${done} of ${total}`);
  else if (done) parts.push(`${done} done`);
  if (state === "running" && rate) parts.push(`${short(rate)} a second`);
  if (state === "running" && duration(left)) parts.push(`${duration(left)} left`);
  if (state === "cancelled") parts.push("cancelled, what is done is kept");
  if (state === "failed") parts.push("failed");
  return parts.join(" · ");
}

/** One job in a line. */
export function JobLine({ bench, job }) {
  const share = job.total ? Math.min(1, job.done / job.total) : null;
  const live = job.state === "running" || job.state === "queued";
  const send = (kind) => () => bench.act("bench", { kind, job: job.id }).catch(() => {});
  return html`<div class="wb-job">
    <span class="wb-job-label">${job.label}</span>
    ${live && html`<progress class="wb-progress" max="1" value=${share ?? undefined} aria-label=${job.label}></progress>`}
    <span class="wb-note">${progressText(job)}</span>
    ${job.error && html`<span class="wb-error-text" role="alert">${job.error}</span>`}
    ${live && html`<${Button} onClick=${send("cancel")} label=${`Cancel: ${job.label}`}>Cancel</${Button}>`}
    ${!live && job.resumable && html`<${Button} onClick=${send("resume")} label=${`Resume: ${job.label}`}>Resume</${Button}>`}
  </div>`;
}

/** The newest job of one view: running, or ended in a way that one should know. Nothing otherwise. */
export function JobBar({ bench, view }) {
  const all = bench.jobs.value;
  const job = useMemo(() => all.filter((other) => other.view === view).at(-1), [all, view]);
  if (!job || (job.state === "done" && !job.resumable)) return null;
  return html`<${JobLine} bench=${bench} job=${job} />`;
}
