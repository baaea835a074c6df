'use strict';
// Pictures in and out.

const { Handle, closing, create } = require('./handle.js');
const { call, callAsync } = require('./library.js');
const { invalid } = require('./error.js');
const { filePath, u32 } = require('./values.js');

/** Floats from 0 to 1 as bytes. */
function toBytes(data, name) {
  if (data.some(Number.isNaN)) throw invalid(`${name}.data`, 'contains NaN');
  return Uint8Array.from(data, (value) => Math.round(Math.min(Math.max(value, 0), 1) * 255));
}

/** Floats beyond these are of another scale; what sharp edges overshoot by is less. The library clips what lies between. */
const [LOWEST, HIGHEST] = [-0.25, 2];

/** Refuses what would come out as a white picture, or as one without shadows. NaN is the library's to refuse. */
function checkScale(data, name) {
  let [low, high] = [0, 0];
  for (const value of data) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (high >= HIGHEST) throw invalid(`${name}.data`, `floats go from 0 to 1, these up to ${high}; divide by 255?`);
  if (low < LOWEST) throw invalid(`${name}.data`, `floats go from 0 to 1, these from ${low}; bring them there by (x + 1) / 2?`);
}

function fromPixels(image, name) {
  const { data } = image;
  const width = u32(image.width, `${name}.width`);
  const height = u32(image.height, `${name}.height`);
  const floats = data instanceof Float32Array;
  if (!floats && !(data instanceof Uint8Array) && !(data instanceof Uint8ClampedArray)) {
    throw new TypeError(`${name}.data: a Uint8Array, Uint8ClampedArray or Float32Array is needed`);
  }
  const channels = image.channels ?? data.length / (width * height);
  if (channels !== 3 && channels !== 4) throw invalid(`${name}.channels`, `is ${channels}; allowed are 3 and 4`);
  if (data.length !== width * height * channels) {
    throw invalid(`${name}.data`, `has ${data.length} numbers; ${width}x${height} pixels of ${channels} need ${width * height * channels}`);
  }
  if (floats) checkScale(data, name);
  if (channels === 4) return create('image', 'image_from_rgba8', floats ? toBytes(data, name) : data, width, height, 0);
  return create('image', floats ? 'image_from_f32' : 'image_from_rgb8', data, width, height, 0);
}

/** A handle of a picture file, or of pixels. The caller closes it. */
async function openImage(image, name = 'image') {
  if (typeof image === 'string' || image instanceof URL) {
    const out = [null];
    await callAsync('image_open', filePath(image, name), out);
    return new Handle('image', out[0]);
  }
  if (image === null || typeof image !== 'object') {
    throw new TypeError(`${name}: a path or an object with data, width and height is needed`);
  }
  return fromPixels(image, name);
}

/** The pixels of an image's pointer. */
function pixels(image) {
  const [width, height, needed] = [[0], [0], [0]];
  call('image_size', image, width, height);
  call('image_copy_rgb8', image, null, 0, needed);
  const data = new Uint8Array(needed[0]);
  call('image_copy_rgb8', image, data, data.length, needed);
  return { data, width: width[0], height: height[0], channels: 3 };
}

/** Writes a PNG file. */
async function savePng(path, image) {
  const place = filePath(path, 'path');
  await closing([await openImage(image)], (pointer) => callAsync('image_save_png', pointer, place));
}

module.exports = { openImage, pixels, savePng };
