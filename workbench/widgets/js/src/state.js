/** What Python says, and over it, for a moment, what was just done here and Python has not yet confirmed. */
import { computed, signal } from "@preact/signals";

/** The old value where it says the same as the new one, so that whoever watches it is not woken for nothing. */
export function keep(old, fresh) {
  if (Object.is(old, fresh) || old === null || typeof old !== "object" || fresh === null || typeof fresh !== "object") {
    return fresh;
  }
  if (Array.isArray(old) !== Array.isArray(fresh)) return fresh;
  const keys = Object.keys(fresh);
  let same = keys.length === Object.keys(old).length;
  const merged = Array.isArray(fresh) ? [] : {};
  for (const key of keys) {
    merged[key] = keep(old[key], fresh[key]);
    same &&= Object.is(merged[key], old[key]) && key in old;
  }
  return same ? old : merged;
}

export class Shown {
  #truth = signal(null);
  #patches = signal([]); // { change(state) → state, sure, fresh }
  #last = null;

  /** Python's state with the patches laid over it; null before the first. */
  state = computed(() => {
    const truth = this.#truth.value;
    if (truth === null) return null;
    const patched = this.#patches.value.reduce((state, patch) => patch.change(state), truth);
    this.#last = keep(this.#last, patched);
    return this.#last;
  });

  /** A state came. Patches that Python has confirmed are in it. */
  receive(state) {
    const open = this.#patches.peek().filter((patch) => !patch.sure);
    for (const patch of open) patch.fresh = true;
    if (open.length !== this.#patches.peek().length) this.#patches.value = open;
    this.#truth.value = keep(this.#truth.peek(), state);
  }

  /** Shows a change before Python confirms it. */
  lay(change) {
    const patch = { change, sure: false, fresh: false };
    this.#patches.value = [...this.#patches.peek(), patch];
    return patch;
  }

  /** Python did it: the patch goes with the next state, or now where that has come already. */
  confirm(patch) {
    if (patch.fresh) this.lift(patch);
    else patch.sure = true;
  }

  /** Takes a patch away. */
  lift(patch) {
    this.#patches.value = this.#patches.peek().filter((other) => other !== patch);
  }

  clear() {
    this.#patches.value = [];
  }
}
