import { Alert, Box, Container, Stack, Typography } from '@mui/material';
import type { ReactNode } from 'react';

interface PageProps {
  title: ReactNode;
  /** Buttons at the right of the title. */
  actions?: ReactNode;
  error?: unknown;
  children?: ReactNode;
}

export function Page({ title, actions, error, children }: PageProps) {
  return (
    <Box component="main" sx={{ flexGrow: 1, overflow: 'auto' }}>
      <Container maxWidth="lg" sx={{ py: 3 }}>
        <Stack direction="row" alignItems="center" flexWrap="wrap" gap={1.5} sx={{ mb: 2.5 }}>
          <Typography variant="h1" sx={{ flexGrow: 1 }}>{title}</Typography>
          {actions}
        </Stack>
        {error instanceof Error && <Alert severity="error" sx={{ mb: 2 }}>{error.message}</Alert>}
        {children}
      </Container>
    </Box>
  );
}
