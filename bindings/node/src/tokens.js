'use strict';
// Grids of image tokens.

const { create } = require('./handle.js');
const { call } = require('./library.js');
const { invalid } = require('./error.js');
const { list, u32 } = require('./values.js');

/** The grid of image tokens of one picture: plain data. */
class Tokens {
  constructor(grid, width, height) {
    if (grid === undefined || grid === null) throw new TypeError('grid: an array is needed');
    this.grid = grid instanceof Uint32Array ? grid : Uint32Array.from(list(grid, 'grid', u32));
    this.width = u32(width, 'width');
    this.height = u32(height, 'height');
    if (this.grid.length !== this.width * this.height) {
      throw invalid('grid', `has ${this.grid.length} tokens; ${this.width}x${this.height} are needed`);
    }
  }
}

/** The tokens of a pointer. */
function read(pointer) {
  const [width, height, needed] = [[0], [0], [0]];
  call('tokens_grid', pointer, width, height);
  call('tokens_copy', pointer, null, 0, needed);
  const grid = new Uint32Array(needed[0]);
  call('tokens_copy', pointer, grid, grid.length, needed);
  return new Tokens(grid, width[0], height[0]);
}

/** Whether a value is meant as tokens rather than as a picture. */
function isTokens(value) {
  return value !== null && typeof value === 'object' && 'grid' in value;
}

/** A handle of tokens, or of an object that is like them. The caller closes it. */
function toHandle(tokens) {
  if (!isTokens(tokens)) throw new TypeError('tokens: an object with grid, width and height is needed');
  const { grid, width, height } = tokens instanceof Tokens ? tokens : new Tokens(tokens.grid, tokens.width, tokens.height);
  return create('tokens', 'tokens_from_array', grid.length > 0 ? grid : null, width, height);
}

module.exports = { Tokens, isTokens, read, toHandle };
