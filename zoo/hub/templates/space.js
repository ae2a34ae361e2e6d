const facts = JSON.parse(document.getElementById('facts').textContent);
const TOP = 5;

ort.env.wasm.numThreads = 1;  // several threads need headers that a static Space does not send
ort.env.wasm.wasmPaths = new URL('.', document.baseURI).href;
const model = ort.InferenceSession.create(facts.model, {executionProviders: ['wasm']});
model.catch(error => {
  status.textContent = `The model cannot be loaded: ${error.message}`;
});

// Whether a PNG has 16 bits a channel: a browser keeps the upper 8 of them, and the model was told another white.
async function isDeep(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer());
  return head[24] > 8 && [137, 80, 78, 71].every((byte, place) => head[place] === byte);
}

// The pixels of an image file, upright, three bytes each, on the background that the model knows.
async function pixelsOf(file) {
  if (await isDeep(file)) throw new Error('it has 16 bits a channel, which a browser cannot read as the model does');
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {colorSpaceConversion: 'none'});
  } catch {
    throw new Error('this browser cannot read it as an image');
  }
  const {width, height} = bitmap;
  if (width * height > facts.most) throw new Error(`${width}x${height} pixels are more than this page takes`);
  const canvas = Object.assign(document.createElement('canvas'), {width, height});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.fillStyle = facts.background;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data, data = new Uint8Array(3 * width * height);
  for (let at = 0; at < width * height; at++) {
    for (let c = 0; c < 3; c++) data[3 * at + c] = rgba[4 * at + c];
  }
  return {width, height, data};
}

// As the model takes it: floats of 0 to 255, channels first.
function tensorOf({width, height, data}) {
  const values = new Float32Array(3 * width * height);
  for (let at = 0; at < width * height; at++) {
    for (let c = 0; c < 3; c++) values[c * width * height + at] = data[3 * at + c];
  }
  return new ort.Tensor('float32', values, [1, 3, height, width]);
}

function softmax(logits) {
  const most = Math.max(...logits), powers = logits.map(value => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(power => power / sum);
}

async function ask(file) {
  const image = fitted(await pixelsOf(file), facts.rule);
  const session = await model.catch(error => {
    throw new Error(`the model cannot be loaded: ${error.message}`);
  });
  const {logits} = await session.run({[facts.input]: tensorOf(image)});
  const values = Array.from(logits.data), several = facts.thresholds.length > 0;
  const shares = several ? values.map(value => 1 / (1 + Math.exp(-value))) : softmax(values);
  const rows = shares.map((probability, row) => ({name: facts.classes[row], probability, row}));
  rows.sort((a, b) => b.probability - a.probability);
  const classes = rows.slice(0, TOP);
  return several ? {classes, labels: rows.filter(({probability, row}) => probability >= facts.thresholds[row])} : {classes};
}
