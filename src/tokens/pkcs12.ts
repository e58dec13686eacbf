/**
 * Takes the private key and its certificates out of a PKCS#12 file (RFC 7292), which node can hand to TLS but not open.
 *
 * Node does the cryptography: PKCS#8 decryption for the key, PBKDF2 and AES (PBES2, RFC 8018) for the certificates. Files
 * whose certificates are under RC2 or 3DES, the defaults of another age, need the certificate as a file of its own.
 */
import { createDecipheriv, createPrivateKey, pbkdf2Sync, X509Certificate, type KeyObject } from 'node:crypto'
import { KeyError } from './key-error.ts'

const DATA = '1.2.840.113549.1.7.1'
const ENCRYPTED_DATA = '1.2.840.113549.1.7.6'
const KEY_BAG = '1.2.840.113549.1.12.10.1.1'
const SHROUDED_KEY_BAG = '1.2.840.113549.1.12.10.1.2'
const CERTIFICATE_BAG = '1.2.840.113549.1.12.10.1.3'
const PBES2 = '1.2.840.113549.1.5.13'
const CIPHERS: Readonly<Record<string, { name: string; keyBytes: number }>> = {
  '2.16.840.1.101.3.4.1.2': { name: 'aes-128-cbc', keyBytes: 16 },
  '2.16.840.1.101.3.4.1.22': { name: 'aes-192-cbc', keyBytes: 24 },
  '2.16.840.1.101.3.4.1.42': { name: 'aes-256-cbc', keyBytes: 32 }
}
const HASHES: Readonly<Record<string, string>> = {
  '1.2.840.113549.2.7': 'sha1',
  '1.2.840.113549.2.9': 'sha256',
  '1.2.840.113549.2.10': 'sha384',
  '1.2.840.113549.2.11': 'sha512'
}
// The derivation runs once, at start or when the file changes, but on the only thread.
const MAX_ITERATIONS = 2_000_000

/** Throws `KeyError` for a wrong passphrase, a file without a key, and what is no PKCS#12. */
export function openPkcs12(bytes: Buffer, passphrase: string): { privateKey: KeyObject; certificates: X509Certificate[] } {
  try {
    const bags = safeBags(bytes, passphrase)
    const key = bags.find((bag) => bag.id === SHROUDED_KEY_BAG || bag.id === KEY_BAG)
    if (key === undefined) throw new KeyError('key is a PKCS#12 file without a private key')
    return { privateKey: openKey(key, passphrase), certificates: bags.filter((bag) => bag.id === CERTIFICATE_BAG).map(certificateIn) }
  } catch (cause) {
    throw cause instanceof KeyError ? cause : new KeyError('key is neither PEM nor JWK nor PKCS#12', cause)
  }
}

type Element = { readonly tag: number; readonly content: Buffer; readonly whole: Buffer }
type Bag = { readonly id: string; readonly value: Element }

function safeBags(bytes: Buffer, passphrase: string): Bag[] {
  // PFX ::= SEQUENCE { version, authSafe ContentInfo, macData OPTIONAL }
  const authSafe = contentInfo(at(children(first(bytes)), 1))
  const contents = children(first(first(authSafe.content.content).content)).map(contentInfo)
  return contents.flatMap(({ type, content }) => {
    if (type === DATA) return bagsIn(first(content.content).content)
    if (type === ENCRYPTED_DATA) return bagsIn(decrypt(first(content.content), passphrase))
    return []
  })
}

function contentInfo(element: Element): { type: string; content: Element } {
  const [type, content] = children(element)
  return { type: oid(type), content: present(content) }
}

function bagsIn(safeContents: Buffer): Bag[] {
  return children(first(safeContents)).map((bag) => {
    const [id, value] = children(bag)
    return { id: oid(id), value: first(present(value).content) }
  })
}

function openKey(bag: Bag, passphrase: string): KeyObject {
  try {
    return createPrivateKey({ key: bag.value.whole, format: 'der', type: 'pkcs8', ...(bag.id === SHROUDED_KEY_BAG ? { passphrase } : {}) })
  } catch (cause) {
    throw new KeyError('key cannot be opened, keyPassphrase is wrong or missing', cause)
  }
}

function certificateIn(bag: Bag): X509Certificate {
  // CertBag ::= SEQUENCE { certId, [0] OCTET STRING }
  return new X509Certificate(first(at(children(bag.value), 1).content).content)
}

/** EncryptedData ::= SEQUENCE { version, SEQUENCE { contentType, algorithm, [0] IMPLICIT OCTET STRING } } */
function decrypt(encryptedData: Element, passphrase: string): Buffer {
  const [, algorithm, ciphertext] = children(at(children(encryptedData), 1))
  const [scheme, parameters] = children(present(algorithm))
  if (oid(scheme) !== PBES2) {
    throw new KeyError(
      'key is a PKCS#12 file whose certificates are encrypted with RC2 or 3DES; export it anew with AES, or give the certificate as a file of its own'
    )
  }
  const [derivation, encryption] = children(present(parameters))
  const [salt, iterations, ...rest] = children(at(children(present(derivation)), 1))
  const pseudoRandom = rest.find((element) => element.tag === 0x30)
  const hash = pseudoRandom === undefined ? 'sha1' : HASHES[oid(children(pseudoRandom)[0])]
  const [cipherId, iv] = children(present(encryption))
  const cipher = CIPHERS[oid(cipherId)]
  const count = Number.parseInt(present(iterations).content.toString('hex'), 16)
  if (hash === undefined || cipher === undefined || count > MAX_ITERATIONS)
    throw new KeyError('key is a PKCS#12 file with an encryption that is not supported, export it anew with AES')
  const key = pbkdf2Sync(passphrase, present(salt).content, count, cipher.keyBytes, hash)
  const decipher = createDecipheriv(cipher.name, key, present(iv).content)
  try {
    return Buffer.concat([decipher.update(present(ciphertext).content), decipher.final()])
  } catch (cause) {
    throw new KeyError('key cannot be opened, keyPassphrase is wrong or missing', cause)
  }
}

/** Reads one DER element at the start (X.690 §8.1): definite lengths only. */
function first(bytes: Buffer): Element {
  const tag = bytes[0]
  const short = bytes[1]
  if (tag === undefined || short === undefined || short === 0x80 || short > 0x84) throw new RangeError('not DER')
  const lengthBytes = short < 0x80 ? 0 : short - 0x80
  const start = 2 + lengthBytes
  const length = lengthBytes === 0 ? short : bytes.readUIntBE(2, lengthBytes)
  if (start + length > bytes.length) throw new RangeError('DER ends early')
  return { tag, content: bytes.subarray(start, start + length), whole: bytes.subarray(0, start + length) }
}

function children(element: Element): Element[] {
  const found: Element[] = []
  for (let rest = element.content; rest.length > 0;) {
    const child = first(rest)
    found.push(child)
    rest = rest.subarray(child.whole.length)
  }
  return found
}

function at(elements: readonly Element[], index: number): Element {
  return present(elements[index])
}

function present(element: Element | undefined): Element {
  if (element === undefined) throw new RangeError('DER element missing')
  return element
}

function oid(element: Element | undefined): string {
  const parts: number[] = []
  let value = 0
  for (const byte of present(element).content) {
    value = value * 128 + (byte & 0x7f)
    if (byte < 0x80) {
      parts.push(value)
      value = 0
    }
  }
  const [head = 0, ...tail] = parts
  const root = Math.min(2, Math.floor(head / 40))
  return [root, head - root * 40, ...tail].join('.')
}
