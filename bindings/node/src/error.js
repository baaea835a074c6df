'use strict';

const { constants } = require('./abi.json');

const codes = new Map(Object.entries(constants).filter(([name]) => name.startsWith('E_')).map(([name, n]) => [n, `SITTER_${name}`]));

/** What the library, or this package in its manner, reports. */
class SitterError extends Error {
  constructor(status, message, detail = '') {
    super(message);
    this.status = status;
    this.code = codes.get(status) ?? 'unknown status';
    this.detail = detail;
  }
}
Object.defineProperty(SitterError.prototype, 'name', { value: 'SitterError', configurable: true, writable: true });

/** A value of the right type that is not allowed. */
function invalid(name, problem) {
  return new SitterError(constants.E_INVALID_ARGUMENT, `${name}: ${problem}`);
}

module.exports = { SitterError, invalid };
