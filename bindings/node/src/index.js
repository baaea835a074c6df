'use strict';

const { SitterError } = require('./error.js');
const { Evaluator } = require('./evaluator.js');
const { savePng } = require('./image.js');
const { native, text } = require('./library.js');
const { Model, Sample } = require('./model.js');
const { folderOptions, options } = require('./options.js');
const { Run } = require('./run.js');
const { Subject } = require('./subject.js');
const { Tokens } = require('./tokens.js');
const { filePath, parse, string, unknown } = require('./values.js');

function version() {
  return native().version_string();
}

function buildInfo() {
  return parse(native().build_info_json());
}

function devices() {
  return parse(text('devices_json'));
}

/** Nothing is opened: the sizes stand in the model's configuration. */
function estimate(path, { device, dtype, textEncoder, sample, train, ...more } = {}) {
  for (const name of Object.keys(more)) throw unknown(name, ['device', 'dtype', 'textEncoder', 'sample', 'train']);
  const { method = null, ...teaching } = train ?? {};
  const folder = filePath(path, 'path');
  const made = [
    options('model', { device, dtype, textEncoder }, []),
    sample === undefined ? null : folderOptions('sample', sample, [], folder),
    train === undefined ? null : folderOptions('train', teaching, ['method'], folder, method),
  ];
  try {
    return parse(text('model_estimate_json', folder, ...made.map((one) => one?.pointer ?? null)));
  } finally {
    made.forEach((one) => one?.close());
  }
}

function hasFeature(name) {
  return native().has_feature(string(name, 'name')) === 1;
}

module.exports = {
  Evaluator,
  Model,
  Run,
  Sample,
  SitterError,
  Subject,
  Tokens,
  buildInfo,
  devices,
  estimate,
  hasFeature,
  savePng,
  version,
};
