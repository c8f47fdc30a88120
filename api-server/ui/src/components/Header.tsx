import { AppBar, Box, Button, IconButton, ListItemText, Menu, MenuItem, Toolbar, Typography } from '@mui/material';
import AccountCircle from 'mdi-material-ui/AccountCircle';
import { useState } from 'react';
import { Link, useLocation } from 'react-router-dom';
import { displayName, signOut } from '../api/session';
import type { Session } from '../api/session';
import { Logo } from './Logo';

const LINKS = [
  { to: '/', text: 'Dashboards', isActive: (path: string) => path === '/' || path.startsWith('/projects') },
  { to: '/explore', text: 'Explore', isActive: (path: string) => path.startsWith('/explore') },
];

function UserMenu({ user }: { user: NonNullable<Session['user']> }) {
  const [anchor, setAnchor] = useState<HTMLElement>();

  return (
    <>
      <IconButton color="inherit" aria-label="Account" aria-haspopup="menu" onClick={(e) => setAnchor(e.currentTarget)}>
        <AccountCircle />
      </IconButton>
      <Menu open={anchor !== undefined} anchorEl={anchor} onClose={() => setAnchor(undefined)}>
        <MenuItem disabled sx={{ '&.Mui-disabled': { opacity: 1 } }}>
          <ListItemText primary={displayName(user)} secondary={`Signed in as ${user.metadata.name}`} />
        </MenuItem>
        <MenuItem onClick={signOut}>Sign out</MenuItem>
      </Menu>
    </>
  );
}

export function Header({ session }: { session: Session }) {
  const { pathname } = useLocation();
  return (
    <AppBar position="static" elevation={0} sx={{ bgcolor: '#14213d', color: '#fff' }}>
      <Toolbar variant="dense" sx={{ gap: 1, minHeight: 52 }}>
        <Box component={Link} to="/" sx={{ display: 'flex', alignItems: 'center', gap: 1, mr: 3, color: 'inherit', textDecoration: 'none' }}>
          <Logo />
          <Typography component="span" sx={{ fontSize: '1.05rem', fontWeight: 700, letterSpacing: '0.02em' }}>Perses</Typography>
        </Box>
        <Box component="nav" sx={{ display: 'flex', gap: 0.5, flexGrow: 1 }}>
          {LINKS.map(({ to, text, isActive }) => (
            <Button key={to} component={Link} to={to} color="inherit" aria-current={isActive(pathname) ? 'page' : undefined}
              sx={{ px: 1.5, opacity: isActive(pathname) ? 1 : 0.75, bgcolor: isActive(pathname) ? 'rgba(255,255,255,0.12)' : undefined }}>
              {text}
            </Button>
          ))}
        </Box>
        {session.user && <UserMenu user={session.user} />}
      </Toolbar>
    </AppBar>
  );
}
