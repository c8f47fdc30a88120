import { Alert, Box, Button, Divider, Paper, Stack, TextField, Typography } from '@mui/material';
import { useState } from 'react';
import type { FormEvent } from 'react';
import { useNavigate, useSearchParams } from 'react-router-dom';
import { HttpError, basePath } from '../api/http';
import { signIn, useSignInWays } from '../api/session';
import { Logo } from '../components/Logo';

// Only a path of this app: never an address of another host ("//host", "/\host").
const returnPath = (wanted: string | null) => (wanted && /^\/(?![/\\])/.test(wanted) ? wanted : '/');

export function SignInPage() {
  const [search] = useSearchParams();
  const navigate = useNavigate();
  const [login, setLogin] = useState('');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<string>();
  const [busy, setBusy] = useState(false);
  const { data: ways, error: unreachable } = useSignInWays();
  const target = returnPath(search.get('rd'));

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await signIn(login, password);
      navigate(target, { replace: true });
    } catch (reason) {
      const refused = reason instanceof HttpError && reason.status < 500;
      const limited = reason instanceof HttpError && reason.status === 429;
      setError(refused && !limited ? 'Wrong login or password.' : `Sign-in failed: ${limited ? reason.message : String(reason)}`);
      setBusy(false);
    }
  }

  return (
    <Box component="main" sx={{ minHeight: '100vh', display: 'grid', placeItems: 'center', bgcolor: '#14213d', p: 2 }}>
      <Paper sx={{ p: 4, width: '100%', maxWidth: 380, borderRadius: 2 }} elevation={8}>
        <Stack gap={2.5}>
          <Stack direction="row" alignItems="center" gap={1.5}>
            <Logo size={36} />
            <Typography variant="h1">Sign in to Perses</Typography>
          </Stack>
          {error && <Alert severity="error">{error}</Alert>}
          {unreachable instanceof Error && <Alert severity="error">The server does not answer: {unreachable.message}</Alert>}
          {ways?.native && (
            <form onSubmit={(event) => void submit(event)}>
              <Stack gap={2.5}>
                <TextField label="Login" name="username" autoComplete="username" value={login} onChange={(e) => setLogin(e.target.value)} autoFocus required size="medium" />
                <TextField label="Password" name="password" type="password" autoComplete="current-password" value={password}
                  onChange={(e) => setPassword(e.target.value)} required size="medium" />
                <Button type="submit" variant="contained" size="large" disabled={busy || !login || !password}>Sign in</Button>
              </Stack>
            </form>
          )}
          {ways?.native && ways.providers.length > 0 && <Divider>or</Divider>}
          {ways?.providers.map(({ name, path }) => (
            <Button key={path} variant="outlined" size="large" href={`${basePath}${path}?rd=${encodeURIComponent(basePath + target)}`}>
              Sign in with {name}
            </Button>
          ))}
          {ways?.kubernetes && <Alert severity="info">This server takes tokens of its cluster: sign in there, or use percli.</Alert>}
        </Stack>
      </Paper>
    </Box>
  );
}
