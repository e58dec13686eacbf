import { spawn } from 'node:child_process'

const OPENERS: Readonly<Partial<Record<NodeJS.Platform, readonly [command: string, ...args: string[]]>>> = {
  darwin: ['open'],
  // no shell between: an address is full of ampersands
  win32: ['rundll32', 'url.dll,FileProtocolHandler']
}

/** Asks the desktop to open an address; resolves false where there is none to ask. The browser lives on without us. */
export function openBrowser(url: string): Promise<boolean> {
  const [command, ...args] = OPENERS[process.platform] ?? ['xdg-open']
  return new Promise((resolve) => {
    const browser = spawn(command, [...args, url], { stdio: 'ignore', detached: true })
    browser.once('spawn', () => resolve(true))
    browser.once('error', () => resolve(false))
    browser.unref()
  })
}
