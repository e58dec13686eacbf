import { describe, expect, test } from 'vitest'
import { environmentFindings } from '../../../src/config/environment.ts'

describe('the surroundings', () => {
  test('that are ordinary are fine', () => {
    expect(
      environmentFindings({ PATH: '/usr/bin', NODE_OPTIONS: '--max-old-space-size=256 --enable-source-maps', NODE_TLS_REJECT_UNAUTHORIZED: '1' }, [
        '--no-warnings'
      ])
    ).toEqual([])
  })

  test.each([
    ['certificates unchecked', { NODE_TLS_REJECT_UNAUTHORIZED: '0' }, [], 'NODE_TLS_REJECT_UNAUTHORIZED'],
    ['TLS keys logged', { SSLKEYLOGFILE: '/tmp/keys' }, [], 'SSLKEYLOGFILE'],
    ['TLS keys logged by a flag', {}, ['--tls-keylog=/tmp/keys'], '--tls-keylog'],
    ['TLS keys logged by NODE_OPTIONS', { NODE_OPTIONS: '--tls-keylog=/tmp/keys' }, [], '--tls-keylog'],
    ['a debugger', {}, ['--inspect'], 'debugger'],
    ['a debugger on a port', {}, ['--inspect=0.0.0.0:9229'], 'debugger'],
    ['a debugger that waits', {}, ['--inspect-brk'], 'debugger'],
    ['a debugger by NODE_OPTIONS', { NODE_OPTIONS: '--no-warnings "--inspect-wait=9229"' }, [], 'debugger'],
    ['node’s traces of HTTP', { NODE_DEBUG: 'fs,http' }, [], 'NODE_DEBUG=http'],
    ['node’s traces of everything', { NODE_DEBUG: '*' }, [], 'NODE_DEBUG']
  ])('with %s are refused', (_name, environment, flags, named) => {
    expect(environmentFindings(environment, flags)).toEqual([expect.stringContaining(named)])
  })

  test('with several hazards name them all', () => {
    expect(environmentFindings({ NODE_TLS_REJECT_UNAUTHORIZED: '0', SSLKEYLOGFILE: 'x' }, ['--inspect'])).toHaveLength(3)
  })
})
