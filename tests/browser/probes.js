// Measures in the page itself, where a test's own round trips (about 5 ms each) do not count.

(() => {
  const longTasks = [], keep = (entries) => longTasks.push(...entries);
  const observer = new PerformanceObserver((list) => keep(list.getEntries()));
  observer.observe({ type: "longtask", buffered: true });
  const afterPaint = (then) => requestAnimationFrame(() => setTimeout(() => then(performance.now())));

  /** Frames and long tasks from now on; `watch` is asked at each frame, and its changes are counted. */
  function record(watch) {
    const times = [], from = performance.now();
    let going = true, last = watch?.(), changes = 0;
    const frame = (now) => {
      if (!going) return;
      times.push(now);
      const seen = watch?.();
      if (seen !== last) { changes++; last = seen; }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    return () => {
      going = false;
      const to = performance.now();
      keep(observer.takeRecords());
      return {
        seconds: (to - from) / 1000,
        frames: times.length,
        changes,
        gaps: times.slice(1).map((t, i) => t - times[i]),
        long_tasks: longTasks.filter((t) => t.startTime + t.duration >= from).map((t) => t.duration),
      };
    };
  }

  /** Resolves to the milliseconds from the user's next event to the paint of the first frame in which `met()` holds. */
  function latency(met, timeout) {
    return new Promise((resolve, reject) => {
      let from = null;
      const kinds = ["pointerdown", "keydown", "wheel"];
      const begin = (event) => { from ??= event.timeStamp; };
      kinds.forEach((kind) => addEventListener(kind, begin, { capture: true }));
      const stop = () => kinds.forEach((kind) => removeEventListener(kind, begin, { capture: true }));
      const until = performance.now() + timeout;
      const look = () => {
        if (from !== null && met()) { stop(); afterPaint((now) => resolve(now - from)); }
        else if (performance.now() > until) { stop(); reject(new Error(from === null ? "no click or key came" : "the condition was never met")); }
        else requestAnimationFrame(look);
      };
      look();
    });
  }

  window.probes = { record, latency, running: null, pending: null };
})();
