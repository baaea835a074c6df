'use strict';

const { constants } = require('./abi.json');
const { Handle, Owner, handleOf, holding, own } = require('./handle.js');
const { call, callAsync, text } = require('./library.js');
const { filePath, parse } = require('./values.js');

const STAGES = new Map([
  [constants.STAGE_EMBEDDING, 'embedding'],
  [constants.STAGE_LAYERS, 'layers'],
]);

/** What training learned about one subject. */
class Subject extends Owner {
  constructor() {
    super();
    throw new TypeError('subjects come from Model.train and Subject.load');
  }

  static async load(path) {
    const out = [null];
    await callAsync('subject_load', filePath(path, 'path'), out);
    return adopt(new Handle('subject', out[0]));
  }

  async save(path) {
    const place = filePath(path, 'path');
    return holding([handleOf(this, Subject)], (pointer) => callAsync('subject_save', pointer, place));
  }

  get info() {
    return parse(text('subject_info_json', handleOf(this, Subject).pointer));
  }

  get losses() {
    const { pointer } = handleOf(this, Subject);
    const needed = [0];
    call('subject_losses', pointer, null, null, null, 0, needed);
    const count = needed[0];
    if (count === 0) return [];
    const [stages, steps, losses] = [new Int32Array(count), new BigUint64Array(count), new Float64Array(count)];
    call('subject_losses', pointer, stages, steps, losses, count, needed);
    return Array.from(losses, (loss, i) => ({ stage: STAGES.get(stages[i]) ?? 'unknown', step: Number(steps[i]), loss }));
  }
}

/** The subject of a handle. */
function adopt(handle) {
  return own(Object.create(Subject.prototype), handle);
}

module.exports = { Subject, adopt };
