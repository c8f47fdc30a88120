import { Alert, Box, Button, Paper, Stack, TextField, Typography } from '@mui/material';
import { useState } from 'react';
import type { FormEvent } from 'react';
import { useNavigate, useSearchParams } from 'react-router-dom';
import { HttpError } from '../api/http';
import { signIn } from '../api/session';
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

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await signIn(login, password);
      navigate(returnPath(search.get('rd')), { replace: true });
    } catch (reason) {
      const refused = reason instanceof HttpError && reason.status < 500;
      setError(refused ? 'Wrong login or password.' : `Sign-in failed: ${String(reason)}`);
      setBusy(false);
    }
  }

  return (
    <Box component="main" sx={{ minHeight: '100vh', display: 'grid', placeItems: 'center', bgcolor: '#14213d', p: 2 }}>
      <Paper sx={{ p: 4, width: '100%', maxWidth: 380, borderRadius: 2 }} elevation={8}>
        <form onSubmit={(event) => void submit(event)}>
          <Stack gap={2.5}>
            <Stack direction="row" alignItems="center" gap={1.5}>
              <Logo size={36} />
              <Typography variant="h1">Sign in to Perses</Typography>
            </Stack>
            {error && <Alert severity="error">{error}</Alert>}
            <TextField label="Login" name="username" autoComplete="username" value={login} onChange={(e) => setLogin(e.target.value)} autoFocus required size="medium" />
            <TextField label="Password" name="password" type="password" autoComplete="current-password" value={password}
              onChange={(e) => setPassword(e.target.value)} required size="medium" />
            <Button type="submit" variant="contained" size="large" disabled={busy || !login || !password}>Sign in</Button>
          </Stack>
        </form>
      </Paper>
    </Box>
  );
}
