import './reflection.ts'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequestGenerator,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator
} from '@peculiar/x509'
import { generateKeyPair, randomBytes, webcrypto, X509Certificate, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { calculateJwkThumbprint } from 'jose'
import { Secret } from '../../exchange/secret.ts'
import { certificateThumbprint } from '../key-material.ts'
import { DAY_MS, LONGEST_LIFE_DAYS } from './expiry.ts'
import type { KeyAlgorithm, PublicHalf } from './key-record.ts'

export type KeyPair = { readonly privatePem: Secret; readonly publicHalf: PublicHalf }

export type KeyPairOptions = { readonly alg: KeyAlgorithm; readonly name: string; readonly days: number; readonly now: number }

// Above what every provider asks for, below what some refuse.
const RSA_BITS = 3072
const CURVES: Readonly<Partial<Record<KeyAlgorithm, string>>> = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }
const HASHES: Readonly<Record<string, string>> = { '256': 'SHA-256', '384': 'SHA-384', '512': 'SHA-512' }

const makePair = promisify(generateKeyPair)

/**
 * Makes a key pair with a self-signed certificate (RFC 5280) and a certificate request (RFC 2986) for `CN=name`.
 *
 * RSA keys have 3072 bits; their certificate and request bear PKCS#1 signatures also for PS…, because the signature on a
 * certificate binds the key to no algorithm and every provider reads that one. `days` is 1 to 730; `now` is epoch
 * milliseconds. Throws a `RangeError` for other `days`.
 */
export async function makeKeyPair({ alg, name, days, now }: KeyPairOptions): Promise<KeyPair> {
  if (!Number.isInteger(days) || days < 1 || days > LONGEST_LIFE_DAYS) throw new RangeError(`a key lasts 1 to ${LONGEST_LIFE_DAYS} days`)
  const { privateKey, publicKey } = await generate(alg)
  // Certificates count whole seconds.
  const notBefore = Math.floor(now / 1000) * 1000
  const notAfter = notBefore + days * DAY_MS
  const signing = signatureOf(alg)
  const keys = await forSigning(privateKey, publicKey, signing)
  const subject = [{ CN: [name] }]

  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: subject,
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    signingAlgorithm: signing,
    keys,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]),
      await SubjectKeyIdentifierExtension.create(keys.publicKey)
    ]
  })
  const request = await Pkcs10CertificateRequestGenerator.create({ name: subject, keys, signingAlgorithm: signing })
  const jwk = publicKey.export({ format: 'jwk' })
  const kid = await calculateJwkThumbprint(jwk)
  const thumbprint = certificateThumbprint(new X509Certificate(certificate.toString('pem')), 'sha256')

  return {
    privatePem: new Secret(privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()),
    publicHalf: {
      alg,
      kid,
      thumbprint,
      jwk: { ...jwk, kid, use: 'sig', alg, 'x5t#S256': thumbprint, x5c: [certificate.toString('base64')] },
      publicPem: publicKey.export({ format: 'pem', type: 'spki' }).toString(),
      certificatePem: withLineEnd(certificate.toString('pem')),
      requestPem: withLineEnd(request.toString('pem')),
      notBefore,
      notAfter
    }
  }
}

function generate(alg: KeyAlgorithm): Promise<{ privateKey: KeyObject; publicKey: KeyObject }> {
  const namedCurve = CURVES[alg]
  return namedCurve === undefined ? makePair('rsa', { modulusLength: RSA_BITS }) : makePair('ec', { namedCurve })
}

type Signature = { name: string; hash: string; namedCurve?: string }

function signatureOf(alg: KeyAlgorithm): Signature {
  const hash = HASHES[alg.slice(2)] ?? 'SHA-256'
  const namedCurve = CURVES[alg]
  return namedCurve === undefined ? { name: 'RSASSA-PKCS1-v1_5', hash } : { name: 'ECDSA', hash, namedCurve }
}

async function forSigning(privateKey: KeyObject, publicKey: KeyObject, algorithm: Signature): Promise<webcrypto.CryptoKeyPair> {
  const secret = privateKey.export({ format: 'der', type: 'pkcs8' })
  const open = publicKey.export({ format: 'der', type: 'spki' })
  return {
    privateKey: await webcrypto.subtle.importKey('pkcs8', secret, algorithm, false, ['sign']),
    publicKey: await webcrypto.subtle.importKey('spki', open, algorithm, true, ['verify'])
  }
}

/** 127 random bits: positive, as RFC 5280 §4.1.2.2 wants it. */
function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}

function withLineEnd(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`
}
