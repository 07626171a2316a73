// The phone's own check of who holds it (WebAuthn, platform authenticator): as a proof
// that the user was verified, bound to the very answer that is signed.
import { base64url, fromBase64url, sha256, utf8 } from "./bytes";

export async function available(): Promise<boolean> {
  try {
    return "PublicKeyCredential" in window && (await PublicKeyCredential.isUserVerifyingPlatformAuthenticatorAvailable());
  } catch {
    return false;
  }
}

interface OptionsJSON {
  challenge: string;
  rp: PublicKeyCredentialRpEntity;
  user: { id: string; name: string; displayName: string };
  pubKeyCredParams: PublicKeyCredentialParameters[];
  timeout?: number;
  excludeCredentials?: { id: string; type: "public-key" }[];
  authenticatorSelection?: AuthenticatorSelectionCriteria;
  attestation?: AttestationConveyancePreference;
}

const basic = (c: PublicKeyCredential): Record<string, unknown> => ({ id: c.id, rawId: base64url(c.rawId), type: c.type, clientExtensionResults: c.getClientExtensionResults(), authenticatorAttachment: c.authenticatorAttachment ?? undefined });

/** Makes a credential; null if the person or the device did not want to. */
export async function create(options: OptionsJSON): Promise<unknown> {
  try {
    const credential = (await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: fromBase64url(options.challenge),
        user: { ...options.user, id: fromBase64url(options.user.id) },
        excludeCredentials: (options.excludeCredentials ?? []).map((c) => ({ type: c.type, id: fromBase64url(c.id) })),
      },
    })) as PublicKeyCredential | null;
    if (!credential) return null;
    const r = credential.response as AuthenticatorAttestationResponse;
    return { ...basic(credential), response: { clientDataJSON: base64url(r.clientDataJSON), attestationObject: base64url(r.attestationObject), transports: r.getTransports?.() ?? [] } };
  } catch {
    return null;
  }
}

/** Has the device confirm who holds it, over the text that is signed; null if it did not. */
export async function confirm(id: string, text: string): Promise<unknown> {
  try {
    const credential = (await navigator.credentials.get({
      publicKey: { challenge: await sha256(utf8(text)), rpId: location.hostname, allowCredentials: [{ type: "public-key", id: fromBase64url(id), transports: ["internal"] }], userVerification: "required", timeout: 60_000 },
    })) as PublicKeyCredential | null;
    if (!credential) return null;
    const r = credential.response as AuthenticatorAssertionResponse;
    return {
      ...basic(credential),
      response: { clientDataJSON: base64url(r.clientDataJSON), authenticatorData: base64url(r.authenticatorData), signature: base64url(r.signature), userHandle: r.userHandle ? base64url(r.userHandle) : undefined },
    };
  } catch {
    return null;
  }
}
