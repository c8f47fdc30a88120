import { Alert, Box, Button, CssBaseline, ThemeProvider, createTheme } from '@mui/material';
import { ChartsProvider, SnackbarProvider, generateChartsTheme, getTheme } from '@perses-dev/components';
import { ReactRouterProvider } from '@perses-dev/plugin-system';
import { QueryClientProvider } from '@tanstack/react-query';
import { Suspense, useEffect } from 'react';
import { Navigate, Outlet, useLocation, useNavigate } from 'react-router-dom';
import { QueryParamProvider } from 'use-query-params';
import { ReactRouter6Adapter } from 'use-query-params/adapters/react-router-6';
import { HttpError, basePath, onSignedOut } from './api/http';
import { queryClient } from './api/query-client';
import { useSession } from './api/session';
import { Header } from './components/Header';

// White cards on a page of light grey; the packages' theme has white everywhere.
const theme = createTheme(getTheme('light'), {
  components: { MuiCssBaseline: { styleOverrides: { body: { backgroundColor: '#f4f6f9' } } } },
});
const chartsTheme = generateChartsTheme(theme, { echartsTheme: {} });

/** What every page needs, outermost first. */
export function Root() {
  return (
    <QueryClientProvider client={queryClient}>
      <ThemeProvider theme={theme}>
        <CssBaseline />
        <ChartsProvider chartsTheme={chartsTheme} enablePinning>
          <QueryParamProvider adapter={ReactRouter6Adapter}>
            <SnackbarProvider anchorOrigin={{ vertical: 'bottom', horizontal: 'right' }}>
              <ReactRouterProvider>
                <Outlet />
              </ReactRouterProvider>
            </SnackbarProvider>
          </QueryParamProvider>
        </ChartsProvider>
      </ThemeProvider>
    </QueryClientProvider>
  );
}

const signInPath = ({ pathname, search }: { pathname: string; search: string }) =>
  `/sign-in?rd=${encodeURIComponent(pathname + search)}`;

/** Pages for those who are signed in, or for everybody when sign-in is off. */
export function SignedIn() {
  const location = useLocation();
  const navigate = useNavigate();
  const { data: session, error, refetch } = useSession();

  useEffect(
    () =>
      onSignedOut(() => {
        queryClient.removeQueries(['session']);
        const { pathname, search } = window.location;
        navigate(signInPath({ pathname: pathname.slice(basePath.length), search }), { replace: true });
      }),
    [navigate]
  );

  if (error instanceof HttpError && error.status === 401) return <Navigate to={signInPath(location)} replace />;
  if (error instanceof Error) {
    return (
      <Alert severity="error" sx={{ m: 2 }} action={<Button color="inherit" onClick={() => void refetch()}>Try again</Button>}>
        The server does not answer: {error.message}
      </Alert>
    );
  }
  if (!session) return null;
  return (
    <Box sx={{ height: '100vh', display: 'flex', flexDirection: 'column' }}>
      <Header session={session} />
      <Suspense fallback={null}>
        <Outlet />
      </Suspense>
    </Box>
  );
}
