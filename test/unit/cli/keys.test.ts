import { Command, CommanderError } from 'commander'
import { describe, expect, test } from 'vitest'
import { addKeysCommands } from '../../../src/cli/keys.ts'

/** Parses without running anything that could write: every case here is refused before. */
async function refusal(...args: string[]): Promise<{ code: string; said: string }> {
  let said = ''
  const program = new Command('attache').exitOverride().configureOutput({ writeErr: (text) => (said += text) })
  addKeysCommands(program)
  const error: unknown = await program.parseAsync(['keys', ...args], { from: 'user' }).catch((thrown: unknown) => thrown)
  if (!(error instanceof CommanderError)) throw new Error('was not refused')
  return { code: error.code, said }
}

describe('wrong usage of attache keys', () => {
  test.each(['../escape', '/abs', '.hidden', '-x', 'a b', 'a,CN=evil', 'a\nb', 'æ', 'x'.repeat(64), ''])('a name like %j', async (name) => {
    for (const command of ['new', 'rotate', 'list', 'retire']) {
      expect(await refusal(command, `--name=${name}`)).toMatchObject({ code: 'commander.invalidArgument', said: expect.stringContaining('letters, digits') })
    }
  })

  test.each(['731', '0', '-1', '1e2', '365.5', '', ' 1', 'x'])('a lifetime of %j days', async (days) => {
    expect((await refusal('new', `--days=${days}`)).said).toContain('from 1 to 730')
  })

  test.each(['HS256', 'none', 'rs256', 'EdDSA'])('an algorithm like %s', async (alg) => {
    expect((await refusal('new', '--alg', alg)).said).toContain('Allowed choices are RS256')
  })

  test.each(['2027-13-01', '2027-02-30', 'tomorrow', '20270101'])('an activation date like %s', async (date) => {
    expect((await refusal('rotate', '--activate', date)).said).toContain('2027-01-31')
  })
})
