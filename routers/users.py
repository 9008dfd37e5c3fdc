"""Registration and profiles."""

import uuid

from fastapi import APIRouter, Response

from dependencies import Auth, CurrentSession, CurrentUser, Users
from models.session import PasswordChange
from models.user import FullProfile, ProfileUpdate, PublicProfile, Registered, Registration
from routers.problems import problems

router = APIRouter(prefix="/users", tags=["users"])


@router.post("/register", status_code=201, summary="Create an account", responses=problems(409))
async def register(users: Users, registration: Registration) -> Registered:
    return await users.register_user(registration)


@router.get("/me", summary="The caller's profile", response_model=FullProfile, responses=problems(401))
async def read_me(users: Users, caller: CurrentUser) -> Response:
    # The cache holds the response's own bytes, so a hit is neither parsed nor serialized again.
    return Response(await users.get_user_profile(caller.id), media_type="application/json")


@router.patch("/me", summary="Change what is sent, keep the rest", responses=problems(401, 409))
async def update_me(users: Users, caller: CurrentUser, update: ProfileUpdate) -> FullProfile:
    return await users.update_user(caller.id, update)


@router.post("/me/password", status_code=204, summary="Change it, end other sessions", responses=problems(401))
async def change_password(auth: Auth, who: CurrentSession, change: PasswordChange) -> None:
    await auth.change_password(who, change)


@router.get("/{user_id}", summary="A user: in full for oneself and admins", responses=problems(401, 404))
async def read_user(users: Users, caller: CurrentUser, user_id: uuid.UUID) -> FullProfile | PublicProfile:
    return await users.view_user(user_id, caller)
