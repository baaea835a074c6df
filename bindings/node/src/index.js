'use strict';

const { SitterError } = require('./error.js');
const { savePng } = require('./image.js');
const { native, text } = require('./library.js');
const { Model, Sample } = require('./model.js');
const { Run } = require('./run.js');
const { Subject } = require('./subject.js');
const { Tokens } = require('./tokens.js');
const { parse, string } = require('./values.js');

function version() {
  return native().version_string();
}

function buildInfo() {
  return parse(native().build_info_json());
}

function devices() {
  return parse(text('devices_json'));
}

function hasFeature(name) {
  return native().has_feature(string(name, 'name')) === 1;
}

module.exports = { Model, Run, Sample, SitterError, Subject, Tokens, buildInfo, devices, hasFeature, savePng, version };
