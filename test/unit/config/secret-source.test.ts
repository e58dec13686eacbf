import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { fileSecret, fixedSecret, readableByOthers } from '../../../src/config/secret-source.ts'
import { folder } from './written.ts'

const PEM = '-----BEGIN PRIVATE KEY-----\nMIIB\nAAAA\n-----END PRIVATE KEY-----\n'

/** A secret in a file, and what was warned about. */
function secretFile(content: string | Buffer) {
  const path = join(folder(), 'secret')
  writeFileSync(path, content, { mode: 0o600 })
  const warnings: string[] = []
  const source = fileSecret('file:/run/secret', path, (about, message) => warnings.push(`${about} ${message}`))
  return { path, warnings, source, value: () => source.read().reveal() }
}

describe('the value', () => {
  test.each([
    ['one line', 'hunter2', 'hunter2'],
    ['a line end', 'hunter2\n', 'hunter2'],
    ['a Windows line end', 'hunter2\r\n', 'hunter2'],
    ['spaces, which belong to it', ' hunter 2 \n', ' hunter 2 '],
    ['letters of all kinds', 'pä ss+&=%\n', 'pä ss+&=%'],
    ['a PEM block of several lines', PEM, PEM.trimEnd()],
    ['a PEM block with Windows line ends', PEM.replaceAll('\n', '\r\n'), PEM.replaceAll('\n', '\r\n').trimEnd()],
    ['a JWK of several lines', '{\n  "kty": "EC"\n}\n', '{\n  "kty": "EC"\n}'],
    ['a brace that begins no JSON', '{hunter2\n', '{hunter2']
  ])('with %s is read', (_name, content, value) => {
    expect(secretFile(content).value()).toBe(value)
  })

  test('of a PKCS#12 file is its bytes, line ends included', () => {
    const bytes = Buffer.from([0x30, 0x82, 0xff, 0xfe, 0x00, 0x0d, 0x0a])
    expect(Buffer.from(secretFile(bytes).value(), 'latin1')).toEqual(bytes)
  })

  test.each([
    ['nothing', '', 'is empty'],
    ['a line end alone', '\n', 'is empty'],
    ['space alone', '  \n', 'is empty'],
    ['two lines', 'hunter2\nhunter3\n', 'has several lines, a secret has one'],
    ['an empty line behind', 'hunter2\n\n', 'has several lines, a secret has one'],
    ['a lone carriage return', 'hunter\r2', 'has several lines, a secret has one'],
    ['a byte order mark', '\uFEFFhunter2\n', 'begins with a byte order mark, save it without'],
    ['half a PEM block', PEM.slice(0, 40), 'ends in the middle of a PEM block'],
    ['half a JWK', '{"kty":"EC",', 'begins like JSON and is none'],
    ['bytes that are no text', Buffer.from([0x61, 0xff, 0xfe]), 'is neither UTF-8 text nor PKCS#12'],
    ['far too much', 'x'.repeat(1024 * 1024 + 1), 'is larger than 1 MiB, this is no secret']
  ])('with %s is refused', (_name, content, message) => {
    expect(secretFile(content).value).toThrow(message)
  })

  test('that does not exist is refused', () => {
    expect(() => fileSecret('file:/x', join(folder(), 'missing'), () => undefined).read()).toThrow('does not exist')
  })

  test('that is a folder is refused', () => {
    expect(() => fileSecret('file:/x', folder(), () => undefined).read()).toThrow('is not a file')
  })

  test('from elsewhere follows the same rules', () => {
    expect(fixedSecret('${X}', 'hunter2\n').read().reveal()).toBe('hunter2')
    expect(() => fixedSecret('${X}', '')).toThrow('is empty')
    expect(() => fixedSecret('${X}', 'a\nb')).toThrow('has several lines')
  })

  test('cannot be printed', () => {
    const { source } = secretFile('CANARY\n')
    expect(
      [String(source.read()), JSON.stringify(source.read()), inspect(source.read()), inspect(source, { depth: 9 }), JSON.stringify(source)].join()
    ).not.toContain('CANARY')
  })
})

describe('a file that changes', () => {
  test('is read again when it is rewritten', () => {
    const { path, value } = secretFile('first')
    expect(value()).toBe('first')
    writeFileSync(path, 'second')
    expect(value()).toBe('second')
  })

  test('is read again when another file takes its place', () => {
    const { path, value } = secretFile('first')
    expect(value()).toBe('first')
    writeFileSync(`${path}.new`, 'other')
    renameSync(`${path}.new`, path)
    expect(value()).toBe('other')
  })

  test('is read again after a Kubernetes swap, where only a link above it changes', () => {
    const root = folder()
    for (const [version, text] of [
      ['..2026_01', 'first'],
      ['..2026_02', 'other']
    ] as const) {
      mkdirSync(join(root, version))
      writeFileSync(join(root, version, 'secret'), text)
    }
    symlinkSync('..2026_01', join(root, '..data'))
    symlinkSync('..data/secret', join(root, 'secret'))
    const source = fileSecret('file:/x', join(root, 'secret'), () => undefined)
    expect(source.read().reveal()).toBe('first')
    symlinkSync('..2026_02', join(root, '..data_tmp'))
    renameSync(join(root, '..data_tmp'), join(root, '..data'))
    expect(source.read().reveal()).toBe('other')
  })

  test('is either the old or the new value through many swaps, never part of one', () => {
    const root = folder()
    const values = ['a'.repeat(4000), 'b'.repeat(3000)]
    const path = join(root, 'secret')
    writeFileSync(path, values[0] ?? '')
    const source = fileSecret('file:/x', path, () => undefined)
    for (let round = 0; round < 200; round++) {
      writeFileSync(join(root, 'new'), values[round % 2] ?? '')
      renameSync(join(root, 'new'), path)
      expect(source.read().reveal()).toBe(values[round % 2])
    }
  })

  test.each([
    ['emptied', ''],
    ['half-written', '-----BEGIN PRIVATE KEY-----\nMIIB'],
    ['several lines', 'a\nb']
  ])('and is then %s keeps its last good value, and warns once', (_name, content) => {
    const { path, value, warnings } = secretFile(PEM)
    expect(value()).toBe(PEM.trimEnd())
    writeFileSync(path, content)
    expect([value(), value(), value()]).toEqual([PEM.trimEnd(), PEM.trimEnd(), PEM.trimEnd()])
    expect(warnings).toEqual([expect.stringMatching(/^file:\/run\/secret .*; its last good value serves on$/)])
    writeFileSync(path, 'healed')
    expect(value()).toBe('healed')
  })

  test('and is then gone keeps its last good value, and takes the next one', () => {
    const { path, value, warnings } = secretFile('first')
    expect(value()).toBe('first')
    unlinkSync(path)
    expect([value(), value()]).toEqual(['first', 'first'])
    expect(warnings).toEqual(['file:/run/secret does not exist; its last good value serves on'])
    writeFileSync(path, 'second')
    expect(value()).toBe('second')
  })

  test('and is then a folder keeps its last good value', () => {
    const { path, value, warnings } = secretFile('first')
    expect(value()).toBe('first')
    rmSync(path)
    mkdirSync(path)
    expect([value(), value()]).toEqual(['first', 'first'])
    expect(warnings).toHaveLength(1)
  })

  test('never names its content in a warning', () => {
    const { path, value, warnings } = secretFile('first')
    value()
    writeFileSync(path, 'CANARY\nCANARY')
    value()
    expect(warnings.join()).not.toContain('CANARY')
  })
})

describe('permissions', () => {
  test.each([
    [0o600, false],
    [0o400, false],
    [0o640, true],
    [0o644, true],
    [0o604, true]
  ])('%o: readable by others is %s', (mode, expected) => {
    const { path } = secretFile('x')
    chmodSync(path, mode)
    expect(readableByOthers(path)).toBe(expected)
  })
})
