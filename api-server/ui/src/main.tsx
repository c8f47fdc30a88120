import { StrictMode, lazy } from 'react';
import { createRoot } from 'react-dom/client';
import { RouterProvider, createBrowserRouter } from 'react-router-dom';
import { basePath, installFetch } from './api/http';
import { Root, SignedIn } from './Root';
import { HomePage } from './pages/HomePage';
import { NotFoundPage } from './pages/NotFoundPage';
import { ProjectPage } from './pages/ProjectPage';
import { SignInPage } from './pages/SignInPage';

const DashboardPage = lazy(() => import('./pages/DashboardPage'));
const ExplorePage = lazy(() => import('./pages/ExplorePage'));

// A data router, because the unsaved-changes dialog of a dashboard uses useBlocker. Addresses as in Perses' own UI.
const router = createBrowserRouter(
  [
    {
      Component: Root,
      children: [
        { path: 'sign-in', Component: SignInPage },
        {
          path: '/',
          Component: SignedIn,
          children: [
            { index: true, Component: HomePage },
            { path: 'projects', Component: HomePage },
            { path: 'explore', Component: ExplorePage },
            { path: 'projects/:project', Component: ProjectPage },
            { path: 'projects/:project/:tab', Component: ProjectPage },
            { path: 'projects/:project/dashboards/:name', Component: DashboardPage },
            { path: '*', Component: NotFoundPage },
          ],
        },
      ],
    },
  ],
  { basename: basePath || '/' }
);

installFetch();
const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <RouterProvider router={router} />
    </StrictMode>
  );
}
