import { useQuery } from '@tanstack/react-query';
import { getJson, send } from './http';
import { queryClient } from './query-client';

/** The part of GET /api/config that this app reads. */
interface ServerConfig {
  security?: { enable_auth?: boolean; readonly?: boolean };
}

interface User {
  metadata: { name: string };
  spec?: { firstName?: string; lastName?: string };
}

export interface Session {
  authEnabled: boolean;
  readonly: boolean;
  /** Undefined while nobody is signed in, and always when sign-in is off. */
  user?: User;
}

async function loadSession(): Promise<Session> {
  const { security } = await getJson<ServerConfig>('/api/config');
  const session = { authEnabled: security?.enable_auth === true, readonly: security?.readonly === true };
  if (!session.authEnabled) return session;
  return { ...session, user: await getJson<User>('/api/v1/user/whoami') };
}

/** Who is signed in; an `HttpError` 401 means nobody. */
export const useSession = () =>
  useQuery(['session'], loadSession, { staleTime: 300_000, cacheTime: Infinity, keepPreviousData: false });

export async function signIn(login: string, password: string): Promise<void> {
  await send('POST', '/api/auth/providers/native/login', { login, password });
  queryClient.clear();
}

export async function signOut(): Promise<void> {
  // The answer is a redirect to a page, which is of no use here.
  await fetch('/api/auth/logout');
  queryClient.clear();
}

export function displayName({ metadata, spec }: User): string {
  return [spec?.firstName, spec?.lastName].filter(Boolean).join(' ') || metadata.name;
}
