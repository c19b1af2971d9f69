/** Which steps are compared, how a time is written, and what is said of steps that are gone. */

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

/** That the steps before the first that is kept have fallen off. */
export function fallen(first) {
  return first === 2 ? "step 1 has fallen off" : `steps 1 to ${first - 1} have fallen off`;
}
