/** Which steps are compared, and how a time is written. */

/** The chosen steps after a click on one: off if it was on; of three the oldest choice goes. */
export function chosen(now, id) {
  return now.includes(id) ? now.filter((other) => other !== id) : [...now, id].slice(-2);
}

/** Hours, minutes and seconds, in the reader's own time, of an ISO time. */
export function clock(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "";
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}
