/** A person with a browser: keeps cookies, follows redirects, fills in the forms of a sign-in. */
export async function signInWithBrowser(url: string, user = 'user-1'): Promise<Response> {
  const cookies = new Map<string, string>()
  let request: { url: string; form: URLSearchParams | undefined } = { url, form: undefined }
  for (let step = 0; step < 20; step++) {
    const answer = await fetch(request.url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map((cookie) => cookie.join('=')).join('; ') },
      ...(request.form === undefined ? {} : { method: 'POST', body: request.form })
    })
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      cookies.set(name, value)
    }
    const location = answer.headers.get('location')
    if (location !== null) {
      request = { url: new URL(location, request.url).href, form: undefined }
      continue
    }
    const form = formIn(await answer.clone().text(), request.url, user)
    if (form === undefined) return answer
    request = form
  }
  throw new Error('the sign-in goes round in circles')
}

function formIn(page: string, base: string, user: string): { url: string; form: URLSearchParams } | undefined {
  const action = /<form[^>]*action="([^"]+)"/i.exec(page)?.[1]
  if (action === undefined) return undefined
  const form = new URLSearchParams()
  for (const [input] of page.matchAll(/<input[^>]*>/gi)) {
    const name = /name="([^"]+)"/.exec(input)?.[1]
    if (name !== undefined) form.set(name, /value="([^"]*)"/.exec(input)?.[1] ?? user)
  }
  return { url: new URL(action.replaceAll('&amp;', '&'), base).href, form }
}
