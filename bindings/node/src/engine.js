'use strict';

const { create } = require('./handle.js');
const { call } = require('./library.js');
const { u32 } = require('./values.js');

/** Engine with what is given; null for the library's own. The caller closes it. */
function engine({ threads, maxJobs }) {
  if (threads === undefined && maxJobs === undefined) return null;
  const settings = create('engine_options', 'engine_options_new');
  try {
    if (threads !== undefined) call('engine_options_set_threads', settings.pointer, u32(threads, 'threads'));
    if (maxJobs !== undefined) call('engine_options_set_max_jobs', settings.pointer, u32(maxJobs, 'maxJobs'));
    return create('engine', 'engine_new', settings.pointer);
  } finally {
    settings.close();
  }
}

module.exports = { engine };
