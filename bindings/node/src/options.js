'use strict';
// Option objects, filled in from plain JavaScript objects.

const { options: fields } = require('./abi.json');
const { create } = require('./handle.js');
const { call, text } = require('./library.js');
const values = require('./values.js');

const uints = (value, name) => Uint32Array.from(values.list(value, name, values.u32));
const floats = (value, name) => Float32Array.from(values.list(value, name, values.number));
const strings = (value, name) => values.list(value, name, values.string);

/** Conversions of a field to the setter's arguments, by its kind in the table; `?` allows null. */
const single = {
  u32: values.u32,
  u64: values.u64,
  number: values.number,
  boolean: values.boolean,
  string: values.string,
  path: values.filePath,
};
const several = { 'u32[]': uints, 'f32[]': floats, 'string[]': strings };

function convert(kind, value, name) {
  const base = kind.replace('?', '');
  const isNull = value === null && kind.endsWith('?');
  if (base in single) return [isNull ? null : single[base](value, name)];
  const array = isNull ? [] : several[base](value, name);
  return array.length > 0 ? [array, array.length] : [null, 0];
}

/** Sets what `given` has; what is undefined stays as it is. `beside` are names that the caller has taken out. */
function set(noun, options, given, beside) {
  for (const [name, value] of Object.entries(given)) {
    const field = values.snake(name);
    const kind = Object.hasOwn(fields[noun], field) ? fields[noun][field] : null;
    if (kind === null || name.includes('_')) {
      throw values.unknown(name, [...Object.keys(fields[noun]).map(values.camel), ...beside]);
    }
    if (value === undefined) continue;
    call(`${noun}_options_set_${field}`, options.pointer, ...convert(kind, value, name));
  }
}

/**
 * New options from the arguments of their constructor, with what `given` has. The caller, who knows options named `beside`
 * himself, closes them.
 */
function options(noun, given, beside, ...from) {
  return filled(noun, given, beside, create(`${noun}_options`, `${noun}_options_new`, ...from));
}

/** The same over what the model in a folder recommends, which is not opened. */
function folderOptions(noun, given, beside, ...from) {
  return filled(noun, given, beside, create(`${noun}_options`, `${noun}_options_for_folder`, ...from));
}

function filled(noun, given, beside, made) {
  try {
    set(noun, made, given, beside);
    return made;
  } catch (error) {
    made.close();
    throw error;
  }
}

/** All options with their values. */
function defaults(noun, ...from) {
  const made = options(noun, {}, [], ...from);
  try {
    return values.parse(text(`${noun}_options_get_json`, made.pointer));
  } finally {
    made.close();
  }
}

module.exports = { defaults, folderOptions, options };
