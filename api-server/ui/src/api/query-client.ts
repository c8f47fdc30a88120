import { QueryClient } from '@tanstack/react-query';

// keepPreviousData: a refresh gives every panel query a new key, and without it each panel would blink.
// staleTime: a reloading list variable disables and re-enables the queries that use it, which makes them run
// twice per refresh unless the first answer counts as fresh.
export const queryClient = new QueryClient({
  defaultOptions: { queries: { retry: 0, refetchOnWindowFocus: false, keepPreviousData: true, staleTime: 10_000 } },
});
