import { empty, json, type Answer } from './call.ts'
import type { Sandbox } from './server.ts'

const INDEX = `The strict sandbox: fake providers that keep book of every breach.

GET    /ledger        violations and counts          DELETE /ledger        start afresh (tokens stay valid)
GET    /journal       the last calls, one by one
GET    /faults        faults still armed             POST   /faults        arm one        DELETE /faults[/ID]
GET    /healthz
`

/** The sandbox's own side: everything that is not below a provider's prefix. */
export function control(method: string, target: string, body: Buffer, sandbox: Sandbox): Answer {
  const path = target.split('?')[0] ?? target
  switch (`${method} ${path}`) {
    case 'GET /':
      return text(200, `${INDEX}\nproviders: ${[...sandbox.providers.keys()].map((name) => `/${name}/`).join(' ')}\n`)
    case 'GET /healthz':
      return text(200, 'ok\n')
    case 'GET /ledger':
      sandbox.settle()
      return json(200, sandbox.ledger.snapshot())
    case 'DELETE /ledger':
      sandbox.forget()
      return empty(204)
    case 'GET /journal':
      return json(200, sandbox.ledger.journal)
    case 'GET /faults':
      return json(
        200,
        sandbox.faults.list().map(({ times, ...fault }) => ({ ...fault, times: Number.isFinite(times) ? times : 'always' }))
      )
    case 'POST /faults':
      return arm(body, sandbox)
    case 'DELETE /faults':
      sandbox.faults.clear()
      return empty(204)
  }
  const id = /^\/faults\/(\d+)$/.exec(path)?.[1]
  if (method === 'DELETE' && id !== undefined) {
    sandbox.faults.clear(Number(id))
    return empty(204)
  }
  return text(404, `nothing here; GET / lists what there is\n`)
}

function arm(body: Buffer, sandbox: Sandbox): Answer {
  try {
    const fault = sandbox.faults.add(JSON.parse(body.toString()), [...sandbox.providers.keys()])
    if (fault.kind === 'revoke-token') sandbox.providers.get(fault.provider)?.revokeTokens()
    return json(201, { ...fault, times: Number.isFinite(fault.times) ? fault.times : 'always' })
  } catch (error) {
    return json(400, { error: error instanceof Error ? error.message : String(error) })
  }
}

function text(status: number, body: string): Answer {
  return { status, fields: [['Content-Type', 'text/plain; charset=utf-8']], body }
}
