import type { IncomingMessage, ServerResponse } from 'node:http'
import { pathOf, type Response } from '../exchange/message.ts'
import { Problem } from '../exchange/problem.ts'
import { field } from '../http/fields.ts'
import { Exchange, browserFields } from './caller-exchange.ts'
import type { Door, DownstreamTools } from './door.ts'
import { receiveBody } from './upload.ts'

/** Carries one request of the app through the chain and its answer back: conversion, nothing else. */
export async function serve(message: IncomingMessage, response: ServerResponse, door: Door, tools: DownstreamTools): Promise<void> {
  const exchange = new Exchange(message, response, door, tools)
  try {
    const request = exchange.request(receiveBody(message, response, door.upload, tools.clock))
    exchange.answer(await door.send(request instanceof Promise ? await request : request))
  } catch (error) {
    exchange.fail(error)
  }
}

/** Carries a request to go on in another protocol through the chain; where the provider agrees, the two connections are joined. */
export async function serveUpgrade(message: IncomingMessage, response: ServerResponse, head: Buffer, door: Door, tools: DownstreamTools): Promise<void> {
  const exchange = new Exchange(message, response, door, tools)
  try {
    exchange.goOn(await door.upgrade(exchange.upgradeRequest()), head)
  } catch (error) {
    exchange.fail(error)
  }
}

/** Answers a path of our own (`/_attache/…`): `rooms` gives the handler by what the path begins with; the rest is an id. */
export async function serveOwn(
  message: IncomingMessage,
  response: ServerResponse,
  rooms: Readonly<Record<string, (method: string, id: string) => Promise<Response | undefined>>>,
  tools: DownstreamTools
): Promise<void> {
  const exchange = new Exchange(message, response, undefined, tools)
  try {
    const path = pathOf(message.url ?? '/')
    const [start, handle] = Object.entries(rooms).find(([beginning]) => path.startsWith(beginning)) ?? []
    const answer = handle === undefined || start === undefined ? undefined : await handle(message.method ?? 'GET', path.slice(start.length))
    if (answer === undefined) throw new Problem('unknown-operation', { detail: 'nothing here, or no longer' })
    exchange.answer(answer)
  } catch (error) {
    exchange.fail(error)
  }
}

/** Answers a request that has no upstream. */
export function refuseRequest(message: IncomingMessage, response: ServerResponse, problem: Problem, tools: DownstreamTools): void {
  new Exchange(message, response, undefined, tools).fail(problem)
}

/** Answers somebody who is not listened to, and closes the connection: whoever sent this is no caller of ours. */
export function turnAway(message: IncomingMessage, response: ServerResponse, problem: Problem, tools: DownstreamTools): void {
  new Exchange(message, response, undefined, tools).turnAway(problem)
}

/** Answers the preflight request of a listed origin (the checks have refused all others); it never goes upstream. */
export function answerPreflight(message: IncomingMessage, response: ServerResponse): void {
  const asked = field(message.rawHeaders, 'access-control-request-headers')
  response
    .writeHead(204, [
      ...browserFields(field(message.rawHeaders, 'origin')),
      'Access-Control-Allow-Methods',
      'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS',
      ...(asked === undefined ? [] : ['Access-Control-Allow-Headers', asked]),
      'Access-Control-Max-Age',
      '600'
    ])
    .end()
}
