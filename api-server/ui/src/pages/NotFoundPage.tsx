import { Button } from '@mui/material';
import { Link } from 'react-router-dom';
import { Page } from '../components/Page';

export function NotFoundPage() {
  return (
    <Page title="There is no such page">
      <Button component={Link} to="/" variant="contained">All dashboards</Button>
    </Page>
  );
}
