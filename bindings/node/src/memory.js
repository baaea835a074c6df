'use strict';
// What hangs on JavaScript's small objects, and what is done about those that nobody closed.

const { constants } = require('./abi.json');
const { SitterError } = require('./error.js');
const { text } = require('./library.js');

/** The most models that may be open, which is far more than make sense: whoever has as many forgets to close them. */
const MOST_MODELS = 128;
const MEGABYTE = 2 ** 20;
/** An array buffer counts as much as it can here. */
const LARGEST = 2 ** 30;

/** Bytes of a parameter. */
const BYTES = { f32: 4, bf16: 2, q8_0: 1.0625, q4_k: 0.5625 };

/** Bytes that an object holds, about: of those nouns that hold many. */
const SIZES = {
  model: (pointer) => {
    const { parameters = 0, dtype } = JSON.parse(text('model_info_json', pointer));
    // Its image tokenizer, its threads.
    return 8 * MEGABYTE + parameters * (BYTES[dtype] ?? 4);
  },
  subject: (pointer) => 4 * (JSON.parse(text('subject_info_json', pointer)).stored_numbers ?? 0),
};

/** What is there now, by noun: number and bytes. */
const present = {};

/** What one object holds. */
class Weight {
  #noun;
  #bytes = 0;
  #lifted = false;

  constructor(noun, pointer) {
    this.#noun = noun;
    if (!(noun in SIZES)) return;
    try {
      this.#bytes = SIZES[noun](pointer);
    } catch {
      // A weight that is not known is no reason to lose the object.
    }
    present[noun] ??= { count: 0, bytes: 0 };
    present[noun].count += 1;
    present[noun].bytes += this.#bytes;
  }

  /**
   * Something for the object to hold on to, from which the collector sees how much there is to be gained: it counts the bytes of
   * an array buffer, though they take no memory as long as nobody writes to them. Null where there is too little to matter.
   */
  ballast() {
    if (this.#bytes < MEGABYTE) return null;
    try {
      return new ArrayBuffer(Math.min(this.#bytes, LARGEST));
    } catch {
      return null;
    }
  }

  /** The object is gone. */
  lift() {
    if (this.#lifted || !(this.#noun in SIZES)) return;
    this.#lifted = true;
    present[this.#noun].count -= 1;
    present[this.#noun].bytes -= this.#bytes;
  }
}

/** Lets the collector find what nobody has any more, and what it found be freed. */
async function collect() {
  try {
    // As if much had been taken.
    new ArrayBuffer(LARGEST);
  } catch {
    // There is not that much of an address space.
  }
  await new Promise((resolve) => {
    setTimeout(resolve, 10);
  });
}

let opening = 0;

function crowded() {
  return (present.model?.count ?? 0) + opening >= MOST_MODELS;
}

/** What is open, in words; empty if nothing is. */
function inventory() {
  const said = Object.entries(present)
    .filter(([, { count }]) => count > 0)
    .map(([noun, { count, bytes }]) => `${count} ${noun}${count === 1 ? '' : 's'} (${(bytes / 1e9).toFixed(1)} GB)`);
  return said.join(' and ');
}

function exhausted(message) {
  return new SitterError(constants.E_RESOURCE_EXHAUSTED, message);
}

/** Opens a model by `open`, once more if `twice`, for which those that nobody has any more make room if need be. */
async function withRoom(open, twice) {
  for (let i = 0; crowded() && i < 20; i += 1) await collect();
  if (crowded()) {
    throw exhausted(
      `${MOST_MODELS} models are open or being opened: ${inventory()}; close() those that are no longer needed, and use one model for many calls`,
    );
  }
  opening += 1;
  try {
    return await open();
  } catch (error) {
    if (error?.status !== constants.E_RESOURCE_EXHAUSTED || inventory() === '') throw error;
    const before = inventory();
    for (let i = 0; inventory() === before && i < 5; i += 1) await collect();
    if (twice && inventory() !== before) return await open();
    error.message += `; open are ${before}: close() those that are no longer needed`;
    throw error;
  } finally {
    opening -= 1;
  }
}

module.exports = { MOST_MODELS, Weight, withRoom };
