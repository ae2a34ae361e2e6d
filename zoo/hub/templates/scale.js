// Scaling as Pillow 13 does it for 8 bits a channel, to the last bit: it averages where an image shrinks, works on one
// axis after the other, and rounds in between. A canvas scales otherwise, and other pixels give other probabilities.
const BITS = 2 ** 22;  // the weights are whole numbers of this part
const sinc = x => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
  box: [0.5, x => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, x => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, x => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0)],
  bicubic: [2, x => cubic(Math.abs(x))],
  lanczos: [3, x => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * -0.5 + 2 : 0;
}

// For each pixel of the result: the first pixel that it is made of, and the weight of this one and those after it.
function mixtures(from, to, filter) {
  const [reach, weight] = FILTERS[filter];
  const ratio = from / to, stretch = Math.max(ratio, 1), support = reach * stretch;
  return Array.from({length: to}, (_, place) => {
    const centre = (place + 0.5) * ratio;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let at = first; at < end; at++) weights.push(weight((at - centre + 0.5) * (1 / stretch)));
    const sum = weights.reduce((a, b) => a + b, 0);
    const whole = w => Math.trunc(w * BITS + (w < 0 ? -0.5 : 0.5));
    return {first, weights: weights.map(w => whole(sum === 0 ? w : w / sum))};
  });
}

// One axis: `step` bytes lie between neighbours on it, and each of the `lines` begins where `start` says.
function scaleAxis(source, target, mixed, lines, start, step) {
  for (let line = 0; line < lines; line++) {
    const [read, write] = start(line);
    mixed.forEach(({first, weights}, place) => {
      let sum = BITS / 2;
      for (let n = 0; n < weights.length; n++) sum += source[read + (first + n) * step[0]] * weights[n];
      target[write + place * step[1]] = Math.min(255, Math.max(0, Math.floor(sum / BITS)));
    });
  }
}

function toWidth(image, width, filter) {
  if (width === image.width) return image;
  const {width: old, height, data: source} = image, data = new Uint8Array(3 * width * height);
  const start = line => [Math.trunc(line / 3) * 3 * old + line % 3, Math.trunc(line / 3) * 3 * width + line % 3];
  scaleAxis(source, data, mixtures(old, width, filter), 3 * height, start, [3, 3]);
  return {width, height, data};
}

function toHeight(image, height, filter) {
  if (height === image.height) return image;
  const {width, height: old, data: source} = image, row = 3 * width, data = new Uint8Array(row * height);
  scaleAxis(source, data, mixtures(old, height, filter), row, line => [line, line], [row, row]);
  return {width, height, data};
}

// {width, height, data: three bytes a pixel, row by row} to another size.
function scaled(image, width, height, filter) {
  if (filter === 'nearest') return nearest(image, width, height);
  const lost = image.height - height;  // what loses more than twice as many rows as columns loses the rows first
  if (lost > 0 && lost > 2 * (image.width - width)) return toWidth(toHeight(image, height, filter), width, filter);
  return toHeight(toWidth(image, width, filter), height, filter);
}

// The pixel that each pixel of the result is; Pillow adds step to step, and the sum decides on which side a border lies.
function nearestOnAxis(from, to) {
  const step = from / to;
  let at = step / 2;
  return Array.from({length: to}, () => {
    const found = Math.trunc(at);
    at += step;
    return found;
  });
}

function nearest(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const data = new Uint8Array(3 * width * height), columns = nearestOnAxis(image.width, width);
  nearestOnAxis(image.height, height).forEach((row, y) => columns.forEach((column, x) => {
    for (let c = 0; c < 3; c++) data[3 * (y * width + x) + c] = image.data[3 * (row * image.width + column) + c];
  }));
  return {width, height, data};
}

function cut(image, side, rounding) {
  if (Math.min(image.width, image.height) < side) throw new Error(`smaller than the ${side} pixels that the model takes`);
  const half = rounding === 'torchvision' ? roundEven : Math.floor;
  const left = half((image.width - side) / 2), top = half((image.height - side) / 2);
  const data = new Uint8Array(3 * side * side);
  for (let y = 0; y < side; y++) {
    const from = 3 * ((top + y) * image.width + left);
    data.set(image.data.subarray(from, from + 3 * side), 3 * y * side);
  }
  return {width: side, height: side, data};
}

// Python's way to round: of two whole numbers that are as near, the even one.
function roundEven(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + below % 2 : Math.round(x);
}

// The width and the height to which an image is scaled before it is cut, as Python's `Rule` computes them.
function lengths({width, height}, {resize, squash, rounding}) {
  const shorter = Math.min(width, height);
  const side = length => (rounding === 'torchvision' ? Math.trunc(resize * length / shorter)
    : Math.max(1, roundEven(length * (resize / shorter))));
  return squash ? [resize, resize] : [side(width), side(height)];
}

function fitted(image, rule) {
  if (rule.size) return scaled(image, rule.size[1], rule.size[0], rule.interpolation);
  if (rule.resize) image = scaled(image, ...lengths(image, rule), rule.interpolation);
  return rule.crop ? cut(image, rule.crop, rule.rounding) : image;
}
