// Aggregates over seeds as fedrax.report.curves makes them: seeds are held at their last evaluation, never interpolated,
// and the aggregate ends where the first seed ends. A chart holds the bootstrap's draws, so that a number has one interval
// in the whole report.
const Aggregate = (() => {
  const POINTS = 300;

  // A column as it is stored: a list, or a progression {from, by, count}.
  function column(stored) {
    if (Array.isArray(stored)) return stored;
    return Array.from({length: stored.count}, (_, place) => stored.from + place * stored.by);
  }

  function trailing(values, count) {
    if (count < 2) return values;
    return values.map((_, end) => {
      const last = values.slice(Math.max(0, end + 1 - count), end + 1);
      return last.includes(null) ? null : last.reduce((sum, value) => sum + value, 0) / last.length;
    });
  }

  // One seed's evaluations {x, y} over a cost; y is null where it is not a number.
  function evaluations(seed, axis, value, smoothing) {
    if (seed.x[axis] === undefined || seed.y[value] === undefined) return {x: [], y: []};
    const x = column(seed.x[axis]), y = column(seed.y[value]);
    const kept = x.map((_, place) => place).filter((place) => x[place] !== null);
    return {x: kept.map((place) => x[place]), y: trailing(kept.map((place) => y[place]), smoothing)};
  }

  // The last evaluation at or before each point; null before the first and beyond the last one.
  function held(curve, grid) {
    let place = -1;
    const last = curve.x[curve.x.length - 1];
    return grid.map((point) => {
      while (place + 1 < curve.x.length && curve.x[place + 1] <= point) place += 1;
      return place < 0 || point > last ? null : curve.y[place];
    });
  }

  function commonGrid(curves) {
    const start = Math.max(...curves.map((curve) => curve.x[0]));
    const end = Math.min(...curves.map((curve) => curve.x[curve.x.length - 1]));
    const every = [...new Set(curves.flatMap((curve) => curve.x))].filter((x) => x >= start && x <= end);
    every.sort((a, b) => a - b);
    if (every.length <= POINTS) return every;
    return Array.from({length: POINTS}, (_, place) => Math.min(end, start + (end - start) * place / (POINTS - 1)));
  }

  // How many of so many scores an aggregate leaves out at either end.
  const CUTS = {iqm: (count) => Math.floor(count / 4), mean: () => 0};

  function aggregate(scores, statistic) {
    const cut = CUTS[statistic](scores.length);
    const kept = scores.slice().sort((a, b) => a - b).slice(cut, scores.length - cut);
    return kept.reduce((sum, score) => sum + score, 0) / kept.length;
  }

  // How often each of so many seeds is drawn in each resample; none where a chart has none for that number.
  function resamplesOf(draws, seeds) {
    const bytes = Uint8Array.from(atob(draws?.[seeds] ?? ""), (sign) => sign.charCodeAt(0));
    return Array.from({length: bytes.length / seeds}, (_, row) => bytes.subarray(row * seeds, (row + 1) * seeds));
  }

  function quantile(ordered, level) {
    const place = level * (ordered.length - 1), below = Math.floor(place);
    const above = Math.min(below + 1, ordered.length - 1);
    return ordered[below] + (place - below) * (ordered[above] - ordered[below]);
  }

  // The scores are sorted once, and a resample's aggregate follows from how often each is drawn.
  function interval(scores, statistic, resamples) {
    const ranked = scores.map((_, run) => run).sort((a, b) => scores[a] - scores[b]);
    const count = scores.length, cut = CUTS[statistic](count), end = count - cut;
    const values = new Float64Array(resamples.length);
    for (let resample = 0; resample < resamples.length; resample += 1) {
      const counts = resamples[resample];
      let seen = 0, sum = 0;
      for (let rank = 0; rank < count; rank += 1) {
        const run = ranked[rank], above = seen + counts[run];
        const kept = (above < end ? above : end) - (seen > cut ? seen : cut);
        if (kept > 0) sum += kept * scores[run];
        seen = above;
      }
      values[resample] = sum / (end - cut);
    }
    values.sort();
    return [quantile(values, 0.025), quantile(values, 0.975)];
  }

  // A group's {x, y, low, high, seeds} over a cost, with a chart's draws.
  function curve(group, axis, value, statistic, smoothing, draws) {
    const seeds = group.seeds.map((seed) => evaluations(seed, axis, value, smoothing)).filter((seed) => seed.x.length);
    const empty = {x: [], y: [], low: [], high: [], seeds};
    if (!seeds.length) return empty;
    const grid = commonGrid(seeds), each = seeds.map((seed) => held(seed, grid));
    const resamples = resamplesOf(draws, seeds.length);
    const made = {...empty, x: grid};
    grid.forEach((_, place) => {
      const scores = each.map((values) => values[place]);
      const unknown = scores.includes(null);
      made.y.push(unknown ? null : aggregate(scores, statistic));
      const [low, high] = unknown || !resamples.length ? [null, null] : interval(scores, statistic, resamples);
      made.low.push(low);
      made.high.push(high);
    });
    return made;
  }

  return {curve, held};
})();
