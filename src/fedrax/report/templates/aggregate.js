// Aggregates over seeds as fedrax.report.curves makes them: seeds are held at their last evaluation, never interpolated,
// and the aggregate ends where the first seed ends. The bootstrap's draws are Python's, so that a number has one interval
// in the whole report.
const Aggregate = (() => {
  const RESAMPLES = 2000, POINTS = 300;
  const drawn = new Map();

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

  // Whole numbers from 0 to below count, as numpy.random.default_rng(0).integers(0, count) gives them: PCG64 (O'Neill,
  // 2014), half of each output at a time, brought into the range by Lemire's method (2019).
  function generator(count) {
    const multiplier = 0x2360ed051fc65da44385df649fccf645n, increment = 87136372517582989555478159403783844777n;
    let state = 35399562948360463058890781895381311971n, kept = null;
    function word() {
      if (kept !== null) {
        const half = kept;
        kept = null;
        return half;
      }
      state = BigInt.asUintN(128, state * multiplier + increment);
      const mixed = BigInt.asUintN(64, (state >> 64n) ^ state), turn = state >> 122n;
      const output = BigInt.asUintN(64, (mixed >> turn) | (mixed << (64n - turn)));
      kept = Number(output >> 32n);
      return Number(output & 0xffffffffn);
    }
    const uneven = 2 ** 32 % count;
    return () => {
      let product = word() * count;
      while (product % 2 ** 32 < uneven) product = word() * count;
      return Math.floor(product / 2 ** 32);
    };
  }

  // How often each run is drawn in each resample.
  function draws(runs) {
    if (drawn.has(runs)) return drawn.get(runs);
    const next = generator(runs);
    drawn.set(runs, Array.from({length: RESAMPLES}, () => {
      const counts = new Uint16Array(runs);
      for (let made = 0; made < runs; made += 1) counts[next()] += 1;
      return counts;
    }));
    return drawn.get(runs);
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

  // A group's {x, y, low, high, seeds} over a cost.
  function curve(group, axis, value, statistic, smoothing) {
    const seeds = group.seeds.map((seed) => evaluations(seed, axis, value, smoothing)).filter((seed) => seed.x.length);
    const empty = {x: [], y: [], low: [], high: [], seeds};
    if (!seeds.length) return empty;
    const grid = commonGrid(seeds), each = seeds.map((seed) => held(seed, grid));
    const resamples = seeds.length > 1 ? draws(seeds.length) : [];
    const made = {...empty, x: grid};
    grid.forEach((_, place) => {
      const scores = each.map((values) => values[place]);
      const unknown = scores.includes(null);
      made.y.push(unknown ? null : aggregate(scores, statistic));
      const [low, high] = unknown || scores.length < 2 ? [null, null] : interval(scores, statistic, resamples);
      made.low.push(low);
      made.high.push(high);
    });
    return made;
  }

  return {curve, held};
})();
